"""Decides by thresholds whether images and pixels are anomalous.

Every use decides by these lines: prediction, evaluation and exported models.
"""

import dataclasses
from typing import Any

# The words for a decision in tables; empty where there is no threshold.
DECISIONS = {True: "anomalous", False: "normal", None: ""}


@dataclasses.dataclass(frozen=True)
class Thresholds:
  """What a model's scores are compared with.

  Attributes:
    image: The image score above which an image is anomalous.
    pixel: The value of the anomaly map above which a pixel is anomalous.
    typical: The median image score of normal images, below `image`.
  """

  image: float
  pixel: float
  typical: float

  def is_anomalous(self, score: Any) -> Any:
    """Decides about images.

    Args:
      score: An image score, or an array of them.

    Returns:
      True where a score is above the threshold.
    """
    return score > self.image

  def mask(self, anomaly_map: Any) -> Any:
    """Decides about pixels.

    Args:
      anomaly_map: Anomaly maps of any shape, NaN where nothing was inspected.

    Returns:
      True where a pixel is above the threshold; False where it is NaN.
    """
    return anomaly_map > self.pixel

  def normalised(self, score: Any) -> Any:
    """Expresses a score in terms of the threshold.

    Args:
      score: An image score, or an array of them.

    Returns:
      A number in (0, 1) that rises with the score: 0.25 for the median of the
      normal images, 0.5 at the threshold, and 0.75 as far above it.
    """
    relative = (score - self.image) / (self.image - self.typical)
    return 0.5 + 0.5 * relative / (1 + abs(relative))
