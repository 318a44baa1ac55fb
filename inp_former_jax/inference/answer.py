"""What a model says about an image."""

import dataclasses

import numpy as np

from inp_former_jax.data.image_files import ImageSource
from inp_former_jax.inference.calibration import ALL, Calibration

Source = ImageSource | int  # a file, or the position of an image that is none


@dataclasses.dataclass(frozen=True, eq=False)
class Answer:
  """What a model says about an image.

  Attributes:
    source: The image's file; its position, from 0, if it was not a file.
    score: The image score, in [0, 2].
    normalised: The score in [0, 1], 0.5 at the threshold; None without a
      calibration.
    is_anomalous: Whether the score is above the threshold; None without a
      calibration.
    threshold: The threshold of the score; None without a calibration.
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
  threshold: float | None
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
    threshold=thresholds.image,
    anomaly_map=anomaly_map,
    mask=thresholds.mask(anomaly_map),
    category=category,
  )
