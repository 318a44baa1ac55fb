"""The record of a model's thresholds and colour scale, beside its checkpoint.

A workdir's `calibration.json` holds one calibration for each way of looking at
an image (whole or in tiles, zero-shot or not, ...), because each way has scores
of its own.
"""

import dataclasses
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from inp_former_jax.atomic import write_json
from inp_former_jax.inference.colours import ColourScale
from inp_former_jax.inference.decision import Thresholds
from inp_former_jax.training.checkpoints import place

CALIBRATION = "calibration.json"
ALL = ""  # the category of thresholds that hold for the whole model
_FORMAT = 1


class CalibrationError(ValueError):
  """Raised if a calibration cannot be made, or cannot be read."""


@dataclasses.dataclass(frozen=True)
class Options:
  """The way in which images are looked at, which the scores depend on.

  Attributes:
    zero_shot: Whether a patch is scored by its distance to the nearest INP of
      its own image, instead of by how badly it is reconstructed.
    tile: Height, width and overlap in pixels of the tiles in which an image is
      inspected; None for the whole image at once.
    keep_aspect: Whether an image keeps its aspect ratio when it is resized.
    ignored: Checksum of the regions that are ignored; empty if there are none.
    map_size: Side of the model's anomaly maps in pixels.
    top_fraction: Share of a map's pixels, the highest, whose mean is the image
      score.
  """

  zero_shot: bool = False
  tile: tuple[int, int, int] | None = None
  keep_aspect: bool = False
  ignored: str = ""
  map_size: int = 256
  top_fraction: float = 0.01


@dataclasses.dataclass(frozen=True)
class Evidence:
  """What thresholds were computed from, and what to expect of them.

  Attributes:
    method: "rate" for a false-alarm rate on normal images alone, or "f1" for
      the largest F1 on normal and defective images.
    normal: Number of normal images.
    defective: Number of defective images, 0 with "rate".
    image_rate: The false-alarm rate on images: the one aimed at with "rate",
      the one found with "f1".
    image_interval: The 95 % confidence interval of the rate on new images.
    pixel_rate: The false-alarm rate on pixels of normal images, likewise.
    pixel_interval: The 95 % confidence interval of the rate on new images.
    image_f1: The F1 of the images found with "f1"; None with "rate".
    pixel_f1: The F1 of the pixels found with "f1" and masks; otherwise None.
    miss_rate: The share of the defective images below the threshold; None
      without defective images.
  """

  method: str
  normal: int
  defective: int
  image_rate: float
  image_interval: tuple[float, float]
  pixel_rate: float
  pixel_interval: tuple[float, float]
  image_f1: float | None = None
  pixel_f1: float | None = None
  miss_rate: float | None = None


@dataclasses.dataclass(frozen=True)
class Calibration:
  """Thresholds and colour scale of a model.

  Attributes:
    step: Number of steps that the model was trained for.
    options: The way in which the images were looked at.
    scale: The colour scale of the model's anomaly maps.
    thresholds: The thresholds by category; those of ALL hold for images of any
      other category, or of one that is not known.
    evidence: What the thresholds of each category were computed from.
    images: Description of the images, for people.
    sha256: Checksum of the names of the images.
  """

  step: int
  options: Options
  scale: ColourScale
  thresholds: Mapping[str, Thresholds]
  evidence: Mapping[str, Evidence]
  images: str
  sha256: str

  def thresholds_of(self, category: str = ALL) -> Thresholds:
    """Returns the thresholds for images of a category.

    Args:
      category: The category; ALL, or one without thresholds of its own, gets
        those of the whole model.
    """
    return self.thresholds.get(category, self.thresholds[ALL])


def read_calibrations(workdir: pathlib.Path) -> list[Calibration]:
  """Reads all calibrations of a workdir.

  Args:
    workdir: Folder of a run, or of a converted checkpoint.

  Returns:
    The calibrations; empty if the model has not been calibrated.

  Raises:
    CalibrationError: If the file is damaged, or of a newer version.
  """
  path = workdir / CALIBRATION
  if not path.is_file():
    return []
  try:
    content = json.loads(path.read_text(encoding="utf-8"))
    if content["format"] != _FORMAT:
      raise ValueError(f"format {content['format']}, expected {_FORMAT}")
    return [_from_json(item) for item in content["calibrations"]]
  except (ValueError, TypeError, KeyError, AttributeError) as error:
    raise CalibrationError(
      f"{path} does not hold calibrations ({error}). Remove it and calibrate "
      "again."
    ) from error


def find_calibration(
  workdir: pathlib.Path, step: int, options: Options
) -> Calibration | None:
  """Finds the calibration of a model for one way of looking at images.

  Args:
    workdir: Folder of a run, or of a converted checkpoint.
    step: Number of steps that the model was trained for.
    options: The way in which images are looked at.

  Returns:
    The calibration; None if there is none of this step with these options.

  Raises:
    CalibrationError: If the file is damaged, or of a newer version.
  """
  for calibration in read_calibrations(workdir):
    if (calibration.step, calibration.options) == (step, options):
      return calibration
  return None


def write_calibration(workdir: pathlib.Path, calibration: Calibration) -> None:
  """Adds a calibration to those of a workdir.

  It takes the place of one with the same step and options. Calibrations of
  steps whose checkpoint is no longer there are dropped.

  Args:
    workdir: Folder of a run, or of a converted checkpoint.
    calibration: The calibration to add.
  """
  steps = {calibration.step, *_steps_with_checkpoint(workdir)}
  kept = [
    other
    for other in read_calibrations(workdir)
    if other.step in steps
    and (other.step, other.options) != (calibration.step, calibration.options)
  ]
  _write(workdir, [*kept, calibration])


def drop_calibrations(workdir: pathlib.Path, step: int) -> None:
  """Removes the calibrations of a step, and a file that cannot be read.

  Args:
    workdir: Folder of a run.
    step: The step whose calibrations no longer hold.
  """
  try:
    kept = [c for c in read_calibrations(workdir) if c.step != step]
  except CalibrationError:
    kept = []
  if kept:
    _write(workdir, kept)
  else:
    (workdir / CALIBRATION).unlink(missing_ok=True)


def _write(workdir: pathlib.Path, calibrations: Sequence[Calibration]) -> None:
  content = {"format": _FORMAT, "calibrations": list(calibrations)}
  write_json(workdir / CALIBRATION, content)


def _steps_with_checkpoint(workdir: pathlib.Path) -> set[int]:
  folder = place.of_workdir(workdir)
  names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
  return {int(name) for name in names if name.isdecimal()}


def _from_json(item: Mapping[str, Any]) -> Calibration:
  options, tile = item["options"], item["options"]["tile"]
  return Calibration(
    step=int(item["step"]),
    options=Options(**options | {"tile": tile and tuple(tile)}),
    scale=ColourScale(**item["scale"]),
    thresholds={k: Thresholds(**v) for k, v in item["thresholds"].items()},
    evidence={k: _evidence(v) for k, v in item["evidence"].items()},
    images=item["images"],
    sha256=item["sha256"],
  )


def _evidence(fields: Mapping[str, Any]) -> Evidence:
  values: dict[str, Any] = dict(fields)
  for name in ("image_interval", "pixel_interval"):
    values[name] = tuple(values[name])
  return Evidence(**values)
