"""What a user should know before reading a predictor's answers."""

import json
import os
import pathlib
from collections.abc import Iterator

from inp_former_jax.inference.calibration import read_calibrations
from inp_former_jax.inference.colours import ColourScale
from inp_former_jax.inference.predictor import Predictor


def notes(predictor: Predictor, workdir: str | os.PathLike) -> Iterator[str]:
  """Yields a line for each thing that limits a predictor's answers.

  Args:
    predictor: The predictor.
    workdir: The folder that it was loaded from.
  """
  if predictor.uninspected_share > 0:
    yield (
      f"Not inspected: the outer {predictor.uninspected_share:.0%} of every "
      "image. The model was trained on the centre crop of "
      f"{_size(predictor.preprocessing.crop)} of "
      f"{_size(predictor.preprocessing.resize)} pixels; the maps are NaN "
      "outside of it."
    )
  if predictor.calibration is None:
    yield (
      f"{_why(predictor, pathlib.Path(workdir).expanduser())} Scores without "
      "decisions. To calibrate with normal images that the model has not seen: "
      f"python -m inp_former_jax.calibrate {workdir} IMAGES..., with the same "
      "options."
    )


def recorded_scale(
  predictor: Predictor, workdir: str | os.PathLike
) -> ColourScale | None:
  """Returns the model's colour scale: the calibrated or the evaluation's.

  Args:
    predictor: The predictor.
    workdir: The folder that it was loaded from.

  Returns:
    The scale; None if the model was neither calibrated nor evaluated.
  """
  if predictor.calibration is not None:
    return predictor.calibration.scale
  path = pathlib.Path(workdir).expanduser() / "metrics.json"
  try:
    metrics = json.loads(path.read_text(encoding="utf-8"))
    return ColourScale(*metrics["colour_scale"])
  except (OSError, ValueError, KeyError, TypeError):
    return None


def _why(predictor: Predictor, workdir: pathlib.Path) -> str:
  """Says why there is no calibration."""
  found = read_calibrations(workdir)
  if not found:
    return "The model is not calibrated."
  if any(c.options == predictor.options for c in found):
    steps = ", ".join(sorted({str(c.step) for c in found}))
    return (
      f"The calibration is of step {steps}, and the model is of step "
      f"{predictor.model.step}."
    )
  return (
    "The model is calibrated for other options (tiles, aspect ratio, ignored "
    "regions, zero-shot or map size)."
  )


def _size(size: tuple[int, int]) -> str:
  height, width = size
  return f"{width}x{height}"
