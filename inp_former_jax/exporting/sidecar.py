"""The JSON file beside an exported model: all that its user must know."""

import dataclasses
import importlib.metadata
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from inp_former_jax.atomic import write_json
from inp_former_jax.data.transforms import Preprocessing
from inp_former_jax.exporting import answers
from inp_former_jax.exporting.check import Comparison
from inp_former_jax.hashing import file_sha256
from inp_former_jax.inference.calibration import Calibration
from inp_former_jax.inference.trained import TrainedModel

SIDECAR = "model.json"
_VERSION = 1
_PACKAGES = ("inp-former-jax", "jax", "flax", "numpy", "onnx", "onnxruntime")


def describe(
  model: TrainedModel,
  sizes: Preprocessing,
  calibration: Calibration | None,
  *,
  format: str,
  precision: str,
  category: str,
  identity: Mapping[str, Any],
) -> dict[str, Any]:
  """Describes an exported model, but for its files and how it compared.

  Args:
    model: The model.
    sizes: The sizes of its images.
    calibration: Thresholds and colour scale, or None.
    format: The format of the export.
    precision: The dtype in which it computes.
    category: The category whose thresholds it has.
    identity: The identity of the checkpoint, as a flat dict.

  Returns:
    The content of the sidecar.
  """
  return {
    "sidecar": _VERSION,
    "format": format,
    "precision": precision,
    "preprocessing": _preprocessing(sizes),
    "inputs": {
      answers.IMAGES: {"dtype": "uint8", "shape": ["batch", *sizes.crop, 3]}
    },
    "outputs": {
      name: {"dtype": dtype, "shape": ["batch", *shape]}
      for name, (dtype, shape) in answers.output_specs(
        model, calibration is not None
      ).items()
    },
    **_calibrated(calibration, category),
    "model": _model(model, identity),
    "versions": {
      name: version for name in _PACKAGES if (version := _version(name))
    },
  }


def write(
  folder: pathlib.Path,
  content: Mapping[str, Any],
  files: Sequence[str],
  comparisons: Sequence[Comparison],
) -> dict[str, Any]:
  """Writes the sidecar.

  Args:
    folder: The folder of the export.
    content: What `describe` returned.
    files: The names of the other files of the export.
    comparisons: How the exported model compared with its checkpoint.

  Returns:
    The content of the file.
  """
  paths = [folder / name for name in files]
  whole = {
    **content,
    "files": {
      path.name: {"bytes": path.stat().st_size, "sha256": file_sha256(path)}
      for path in paths
    },
    "comparisons": list(comparisons),
  }
  write_json(folder / SIDECAR, whole)
  return json.loads((folder / SIDECAR).read_text(encoding="utf-8"))


def _preprocessing(sizes: Preprocessing) -> dict[str, Any]:
  height, width = sizes.resize
  return {
    "mode": "RGB",
    "resize": [width, height],
    "filter": "bilinear",
    "crop": list(sizes.crop_box),
    "order": "As in Pillow: width before height; left, top, right, bottom.",
    "normalisation": "Inside the model: it takes uint8.",
  }


def _calibrated(
  calibration: Calibration | None, category: str
) -> dict[str, Any]:
  found: dict[str, Any] = {
    "category": category,
    "thresholds": None,
    "colour_scale": None,
    "calibration": None,
  }
  if calibration is not None:
    thresholds = calibration.thresholds_of(category)
    evidence = calibration.evidence.get(category)
    found |= {
      "thresholds": dataclasses.asdict(thresholds),
      "colour_scale": dataclasses.asdict(calibration.scale),
      "calibration": {
        "images": calibration.images,
        "sha256": calibration.sha256,
        "evidence": evidence and dataclasses.asdict(evidence),
      },
    }
  return found


def _model(model: TrainedModel, identity: Mapping[str, Any]) -> dict[str, Any]:
  """Says which model it is."""
  return {
    "step": model.step,
    "encoder": model.settings.encoder,
    "encoder_sha256": identity["encoder.sha256"],
    "num_prototypes": model.settings.num_prototypes,
    "use_inps": model.settings.use_inps,
    "zero_shot": model.zero_shot,
    "map_size": model.map_size,
    "top_fraction": model.top_fraction,
    "training_images": {
      "count": identity.get("training_images.count"),
      "sha256": identity.get("training_images.sha256"),
    },
  }


def _version(package: str) -> str | None:
  try:
    return importlib.metadata.version(package)
  except importlib.metadata.PackageNotFoundError:
    return None
