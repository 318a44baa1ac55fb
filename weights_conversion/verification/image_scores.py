"""Scores images with an official checkpoint, converted to this project."""

import dataclasses
import pathlib
import tempfile
from collections.abc import Iterator

import numpy as np

from inp_former_jax.data import transforms
from inp_former_jax.data.image_files import find_images
from inp_former_jax.inference import trained
from inp_former_jax.inference.trained import TrainedModel
from inp_former_jax.weights import files
from weights_conversion.official_checkpoints import to_flax
from weights_conversion.verification.comparison import Comparison, Result
from weights_conversion.verification.model import check_model


@dataclasses.dataclass(frozen=True)
class Score:
  """The score of an image.

  Attributes:
    name: Path of the image, relative to the folder that was searched.
    value: The image score, in [0, 2].
  """

  name: str
  value: float


def converted(model_file: pathlib.Path) -> TrainedModel:
  """Loads an official checkpoint by converting it to a temporary workdir.

  Args:
    model_file: The official checkpoint.

  Returns:
    The model, ready to predict.

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
    model_file: The official checkpoint that it was converted from.
    path: The file with the input `image` and the arrays computed from it.

  Returns:
    One result for each array.
  """
  arrays = files.read_arrays(model_file)
  return list(check_model(Comparison(path), model.merged(), arrays))


def image_scores(
  model: TrainedModel,
  folder: pathlib.Path,
  preprocessing: transforms.Preprocessing,
) -> Iterator[Score]:
  """Scores all images below a folder, one at a time.

  Args:
    model: The model that scores them.
    folder: The folder, which is searched with its subfolders.
    preprocessing: Sizes that the images are resized and cropped to.

  Yields:
    The score of each image, in the sorted order of their paths.

  Raises:
    DataError: If an image cannot be read.
    FileNotFoundError: If the folder holds no images.
    ValueError: If the crop is no multiple of the patch size.
  """
  preprocessing.require_patches(model.settings.spec.patch_size)
  paths = find_images(folder)
  if not paths:
    raise FileNotFoundError(f"{folder} holds no images.")
  for path in paths:
    image = transforms.load_image(path, preprocessing)
    # Every device gets a copy, because the devices must divide the batch.
    prediction = model.predict(np.stack([image] * model.mesh.size))
    name = str(path.relative_to(folder))
    yield Score(name, float(prediction.image_score[0]))
