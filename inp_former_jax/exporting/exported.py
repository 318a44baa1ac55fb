"""Exports a model to a folder, which appears only if it answers rightly."""

import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from inp_former_jax.atomic import replacing_folder
from inp_former_jax.data.transforms import Preprocessing
from inp_former_jax.exporting import (
  check,
  onnx_model,
  quantisation,
  runtimes,
  sidecar,
  stablehlo,
)
from inp_former_jax.exporting.check import Comparison, Tolerance
from inp_former_jax.exporting.errors import ExportError
from inp_former_jax.exporting.runtimes import ONNX, STABLEHLO
from inp_former_jax.exporting.samples import Samples
from inp_former_jax.inference.calibration import ALL, Calibration
from inp_former_jax.inference.decision import Thresholds
from inp_former_jax.inference.trained import TrainedModel

FLOAT32, FLOAT16, INT8 = "float32", "float16", "int8"
PRECISIONS = (FLOAT32, FLOAT16, INT8)
# The same operations by the same compiler, and the same by another library.
TOLERANCES = {
  STABLEHLO: Tolerance(score=1e-5, map=1e-4),
  ONNX: Tolerance(score=1e-4, map=1e-4),
}
_REPORT_ONLY = Tolerance(score=np.inf, map=np.inf)
_FILES = {
  STABLEHLO: (stablehlo.MODEL, stablehlo.PARAMETERS),
  ONNX: (onnx_model.MODEL,),
}


def export_model(
  model: TrainedModel,
  out: pathlib.Path,
  *,
  format: str,
  samples: Samples,
  identity: Mapping[str, Any],
  calibration: Calibration | None = None,
  category: str = ALL,
  precision: str = FLOAT32,
  calibration_images: np.ndarray | None = None,
) -> tuple[dict[str, Any], list[Comparison]]:
  """Exports a model and compares it with its checkpoint.

  Args:
    model: The model, on one device and with the compute dtype float32.
    out: The folder to write; an earlier export in it is replaced.
    format: STABLEHLO or ONNX.
    samples: The images on which the two are compared.
    identity: The identity of the checkpoint, as a flat dict.
    calibration: Thresholds and colour scale; None for a model that gives only
      maps and scores.
    category: The category whose thresholds are exported; ALL for those of the
      whole model.
    precision: FLOAT32, or for ONNX also FLOAT16 or INT8.
    calibration_images: Images (B, H, W, 3) uint8 to which INT8 adapts.

  Returns:
    The content of the sidecar, and the comparisons.

  Raises:
    ExportError: If the model cannot be exported as asked, or a package of the
      extra `export` is not installed.
    DifferenceError: If the exported model does not answer as its checkpoint
      does. Nothing is written.
  """
  sizes = require_exportable(model, format, precision)
  require_replaceable(out)
  thresholds = thresholds_of(calibration, category)
  content = sidecar.describe(
    model,
    sizes,
    calibration,
    format=format,
    precision=precision,
    category=category,
    identity=identity,
  )
  tolerance = TOLERANCES[format] if precision == FLOAT32 else _REPORT_ONLY
  with replacing_folder(out) as folder:
    if format == STABLEHLO:
      stablehlo.write(model, sizes.crop, thresholds, folder)
    else:
      write = _write_int8 if precision == INT8 else _write_onnx
      write(model, sizes, thresholds, folder, precision, calibration_images)
    comparisons = []
    runners = runtimes.load(format, folder, thresholds)
    for runtime, runner in runners.items():
      found = check.compare(model, runtime, runner, samples, thresholds)
      check.require_close(found, tolerance)
      comparisons.append(found)
    whole = sidecar.write(folder, content, _FILES[format], comparisons)
  return whole, comparisons


def require_exportable(
  model: TrainedModel, format: str, precision: str
) -> Preprocessing:
  """Checks that a model can be exported in a format and precision.

  Args:
    model: The model.
    format: STABLEHLO or ONNX.
    precision: One of PRECISIONS.

  Returns:
    The sizes of the model's images.

  Raises:
    ExportError: If it cannot.
  """
  if format not in runtimes.FORMATS or precision not in PRECISIONS:
    raise ExportError(
      f"`format` is {format!r} and `precision` {precision!r}; expected one of "
      f"{', '.join(runtimes.FORMATS)} and one of {', '.join(PRECISIONS)}."
    )
  if format == STABLEHLO and precision != FLOAT32:
    raise ExportError(
      f"`precision`={precision} needs `format`=onnx; StableHLO is exported in "
      "float32."
    )
  if model.settings.dtype != FLOAT32:
    raise ExportError(
      f"The model computes in {model.settings.dtype}; load it with "
      "`dtype`=float32, which exported models compute in."
    )
  if model.zero_shot and not model.settings.use_inps:
    raise ExportError(
      "`zero_shot` scores are distances to INPs, and this model has none."
    )
  if model.preprocessing is None:
    raise ExportError(
      "The checkpoint does not say to which size its images are resized and "
      "cropped. Give `resize` and `crop`, such as 448 and 392."
    )
  patch_size = model.settings.spec.patch_size
  return model.preprocessing.require_patches(patch_size)


def require_replaceable(out: pathlib.Path) -> None:
  """Checks that a folder is new, empty, or holds an earlier export.

  Args:
    out: The folder.

  Raises:
    ExportError: If it holds anything else, which is never removed.
  """
  if out.is_dir():
    ours = {sidecar.SIDECAR, *_FILES[STABLEHLO], *_FILES[ONNX]}
    foreign = sorted(set(os.listdir(out)) - ours)
    if foreign:
      raise ExportError(
        f"The folder {out} holds other files ({', '.join(foreign[:3])}). Name "
        "a new folder for the export."
      )
  elif out.exists():
    raise ExportError(
      f"{out} is a file. Name a folder for the export, which holds several "
      "files."
    )


def thresholds_of(
  calibration: Calibration | None, category: str
) -> Thresholds | None:
  """Returns the thresholds of a category.

  Args:
    calibration: The calibration of the model, or None.
    category: The category; ALL for the thresholds of the whole model.

  Raises:
    ExportError: If the category has no thresholds of its own.
  """
  if calibration is None:
    if category != ALL:
      raise ExportError(
        f"`category` is {category!r}, but the model is not calibrated and has "
        "no thresholds. Calibrate it first."
      )
    return None
  if category not in calibration.thresholds:
    known = ", ".join(sorted(set(calibration.thresholds) - {ALL})) or "none"
    raise ExportError(
      f"`category` is {category!r}; the categories with thresholds of their "
      f"own are: {known}. Without `category` those of the whole model are "
      "exported."
    )
  return calibration.thresholds_of(category)


def _write_onnx(model, sizes, thresholds, folder, precision, images) -> None:
  del images  # only integers adapt to images
  dtype = np.dtype(precision)
  path = folder / onnx_model.MODEL
  onnx_model.write(model, sizes.crop, thresholds, path, dtype)


def _write_int8(model, sizes, thresholds, folder, precision, images) -> None:
  del precision
  if images is None or not len(images):
    raise ExportError("`precision`=int8 adapts to images; give `images`.")
  source = folder / "float32.onnx"
  onnx_model.write(model, sizes.crop, thresholds, source)
  quantisation.quantise(source, folder / onnx_model.MODEL, images)
  source.unlink()
