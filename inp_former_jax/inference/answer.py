"""What a model says about an image."""

import dataclasses
import pathlib
from collections.abc import Collection

import numpy as np

from inp_former_jax.data.image_files import ImageSource
from inp_former_jax.inference.calibration import ALL, Calibration
from inp_former_jax.inference.decision import Thresholds

FROM_FOLDER = "folder"  # in place of a category: the folder says which it is

Source = ImageSource | int  # a file, or the position of an image that is none


@dataclasses.dataclass(frozen=True, eq=False)
class Answer:
  """What a model says about an image.

  Attributes:
    source: The image's file; its position, from 0, if it was not a file.
    score: The image score, in [0, 2].
    normalised: The score in (0, 1), 0.5 at the threshold; None without a
      calibration.
    is_anomalous: Whether the score is above the threshold; None without a
      calibration.
    thresholds: The thresholds of score and map; None without a calibration.
    anomaly_map: The anomaly map at the image's own size, (H, W) float32, in
      [0, 2]; NaN where the image was not inspected.
    mask: The pixels above their threshold, (H, W) bool; None without a
      calibration.
    category: The category whose thresholds were used; empty for those of the
      whole model.
  """

  source: Source
  score: float
  normalised: float | None
  is_anomalous: bool | None
  thresholds: Thresholds | None
  anomaly_map: np.ndarray = dataclasses.field(repr=False)
  mask: np.ndarray | None = dataclasses.field(repr=False)
  category: str = ALL


def make_answer(
  source: Source,
  score: float,
  anomaly_map: np.ndarray,
  calibration: Calibration | None = None,
  category: str = ALL,
) -> Answer:
  """Decides about an image.

  Args:
    source: The image's file; its position if it was not a file.
    score: The image score.
    anomaly_map: The anomaly map at the image's own size, (H, W) float32.
    calibration: The thresholds, if any.
    category: The category whose thresholds are used.

  Returns:
    The answer, without decisions if there is no calibration.
  """
  if calibration is None:
    return Answer(source, score, None, None, None, anomaly_map, None, category)
  thresholds = calibration.thresholds_of(category)
  return Answer(
    source=source,
    score=score,
    normalised=float(thresholds.normalised(score)),
    is_anomalous=bool(thresholds.is_anomalous(score)),
    thresholds=thresholds,
    anomaly_map=anomaly_map,
    mask=thresholds.mask(anomaly_map),
    category=category,
  )


def category_of_folder(source: Source, categories: Collection[str]) -> str:
  """Returns the nearest folder above an image that is named like a category.

  Args:
    source: The image's file.
    categories: The names of the categories.

  Returns:
    The category; ALL if no folder has such a name.
  """
  if isinstance(source, int):
    return ALL
  parents = pathlib.Path(str(source)).absolute().parts[-2::-1]
  return next((name for name in parents if name in categories), ALL)
