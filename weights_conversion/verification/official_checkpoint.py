"""Scores of an official checkpoint, through the converted one."""

import dataclasses
import pathlib
import tempfile
from collections.abc import Iterator

import numpy as np

from inp_former_jax import sharding
from inp_former_jax.data import transforms
from inp_former_jax.data.layouts.tree import EXTENSIONS
from inp_former_jax.inference.predict_step import make_predict_step
from inp_former_jax.models import inp_former as model_lib
from inp_former_jax.weights import files
from weights_conversion import inp_former
from weights_conversion.verification.comparison import Comparison, Result
from weights_conversion.verification.model import check_model


@dataclasses.dataclass(frozen=True)
class Score:
  """Image score of one image; in [0, 2]."""

  name: str
  value: float


def converted(model_file: pathlib.Path) -> model_lib.INPFormer:
  """The model of an official checkpoint, by way of a converted one on disk."""
  with tempfile.TemporaryDirectory() as folder:
    inp_former.to_flax(model_file, pathlib.Path(folder))
    return inp_former.restore(pathlib.Path(folder)).model()


def check_reference(
  model: model_lib.INPFormer, model_file: pathlib.Path, path: pathlib.Path
) -> list[Result]:
  """Compares a converted model with the reference arrays of a `.npz`.

  Args:
    model: The converted model.
    model_file: Where it comes from.
    path: Holds `image` and the arrays that come of it.

  Returns:
    A result per array.
  """
  arrays = files.read_arrays(model_file)
  return list(check_model(Comparison(path), model, arrays))


def image_scores(
  model: model_lib.INPFormer,
  folder: pathlib.Path,
  preprocessing: transforms.Preprocessing,
) -> Iterator[Score]:
  """Scores of all images below a folder, one after another.

  Args:
    model: The model.
    folder: Searched with its subfolders, in sorted order.
    preprocessing: Resize and crop.

  Yields:
    A score per image.

  Raises:
    DataError: An image cannot be read.
    FileNotFoundError: There is no image.
  """
  paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in EXTENSIONS)
  if not paths:
    raise FileNotFoundError(f"{folder} holds no images.")
  graphdef, trainable, frozen = model_lib.split(model)
  mesh = sharding.make_mesh()
  predict = make_predict_step(graphdef, mesh)
  for path in paths:
    image = transforms.load_image(path, preprocessing)
    # Every device gets a copy: the batch must be shared out evenly.
    prediction = predict(trainable, frozen, np.stack([image] * mesh.size))
    name = str(path.relative_to(folder))
    yield Score(name, float(prediction.image_score[0]))
