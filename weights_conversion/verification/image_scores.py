"""Scores of an official checkpoint, through the converted one."""

import dataclasses
import pathlib
import tempfile
from collections.abc import Iterator

import numpy as np

from inp_former_jax.data import transforms
from inp_former_jax.data.layouts.tree import EXTENSIONS
from inp_former_jax.inference import trained
from inp_former_jax.inference.trained import TrainedModel
from inp_former_jax.weights import files
from weights_conversion.official_checkpoints import to_flax
from weights_conversion.verification.comparison import Comparison, Result
from weights_conversion.verification.model import check_model


@dataclasses.dataclass(frozen=True)
class Score:
  """Image score of one image; in [0, 2]."""

  name: str
  value: float


def converted(model_file: pathlib.Path) -> TrainedModel:
  """The model of an official checkpoint, by way of a converted one on disk.

  Args:
    model_file: The official checkpoint.

  Raises:
    ValueError: If the file does not fit; every mismatch is named.
  """
  with tempfile.TemporaryDirectory() as folder:
    to_flax(model_file, pathlib.Path(folder))
    return trained.load(folder)


def check_reference(
  model: TrainedModel, model_file: pathlib.Path, path: pathlib.Path
) -> list[Result]:
  """Compares a converted model with the reference arrays of a `.npz`.

  Args:
    model: The converted model.
    model_file: The official checkpoint it comes from.
    path: The file with `image` and the arrays it leads to.

  Returns:
    A result per array.
  """
  arrays = files.read_arrays(model_file)
  return list(check_model(Comparison(path), model.merged(), arrays))


def image_scores(
  model: TrainedModel,
  folder: pathlib.Path,
  preprocessing: transforms.Preprocessing,
) -> Iterator[Score]:
  """Scores all images below a folder, one after another.

  Args:
    model: The model.
    folder: Searched with its subfolders, in sorted order.
    preprocessing: Sizes of resize and crop.

  Yields:
    A score per image.

  Raises:
    DataError: If an image cannot be read.
    FileNotFoundError: If there is no image.
    ValueError: If the crop cannot be cut into patches.
  """
  preprocessing.require_patches(model.settings.spec.patch_size)
  paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in EXTENSIONS)
  if not paths:
    raise FileNotFoundError(f"{folder} holds no images.")
  for path in paths:
    image = transforms.load_image(path, preprocessing)
    # Every device gets a copy: the batch must be shared out evenly.
    prediction = model.predict(np.stack([image] * model.mesh.size))
    name = str(path.relative_to(folder))
    yield Score(name, float(prediction.image_score[0]))
