"""Writes a model as StableHLO, which `jax` alone can run.

The file `model.stablehlo` holds the computation for CPU, CUDA and TPU and any
batch size; the parameters are arrays of `parameters.npz` and its first
argument.
"""

import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export

from inp_former_jax.archives import npz_headers
from inp_former_jax.exporting import answers
from inp_former_jax.exporting.errors import require
from inp_former_jax.inference.decision import Thresholds
from inp_former_jax.inference.trained import TrainedModel
from inp_former_jax.models import placement

MODEL, PARAMETERS = "model.stablehlo", "parameters.npz"
PLATFORMS = ("cpu", "cuda", "tpu")


def write(
  model: TrainedModel,
  crop: tuple[int, int],
  thresholds: Thresholds | None,
  folder: pathlib.Path,
) -> None:
  """Writes a model and its parameters.

  Args:
    model: The model.
    crop: Height and width of its images in pixels.
    thresholds: The thresholds, whose values are not written; None makes a
      function without that argument.
    folder: The folder to write to.

  Raises:
    ExportError: If flatbuffers is not installed.
  """
  require("flatbuffers")  # jax.export imports it only when it serialises
  values = answers.parameters(model)
  (batch,) = export.symbolic_shape("batch")
  arguments = [_shapes(values)]
  if thresholds is not None:
    arguments.append(_shapes(threshold_arrays(thresholds)))
  images = jax.ShapeDtypeStruct((batch, *crop, 3), jnp.uint8)
  function = jax.jit(answers.answer_function(model))
  with placement.on_any_device():
    exported = export.export(function, platforms=PLATFORMS)(*arguments, images)
  (folder / MODEL).write_bytes(exported.serialize())
  # No parameter is called like an argument of savez.
  # pyrefly: ignore[bad-argument-type]
  np.savez(folder / PARAMETERS, **values)


def threshold_arrays(thresholds: Thresholds) -> dict[str, np.ndarray]:
  """Returns thresholds as the exported function takes them."""
  return {
    name: np.asarray(getattr(thresholds, name), np.float32)
    for name in answers.THRESHOLDS
  }


def load(
  folder: pathlib.Path, thresholds: Thresholds | None
) -> Callable[[np.ndarray], answers.Answers]:
  """Reads what `write` has written.

  Args:
    folder: The folder of the export.
    thresholds: The thresholds that the function takes; None if it takes none.

  Returns:
    A function from uint8 images (B, H, W, 3) to answers in numpy.
  """
  exported = export.deserialize(bytearray((folder / MODEL).read_bytes()))
  npz_headers(folder / PARAMETERS)  # before memory is reserved for the arrays
  with np.load(folder / PARAMETERS, allow_pickle=False) as file:
    arguments: list[Any] = [
      {name: jnp.asarray(file[name]) for name in file.files}
    ]
  if thresholds is not None:
    arguments.append(threshold_arrays(thresholds))

  def run(images: np.ndarray) -> answers.Answers:
    found: Any = exported.call(*arguments, images)
    return {name: np.asarray(value) for name, value in found.items()}

  return run


def _shapes(arrays: dict[str, np.ndarray]) -> dict[str, jax.ShapeDtypeStruct]:
  return {
    name: jax.ShapeDtypeStruct(value.shape, value.dtype)
    for name, value in arrays.items()
  }
