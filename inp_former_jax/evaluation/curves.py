"""ROC, precision-recall and per-region overlap curves, thinned to be drawn.

The areas under the whole curves are the metrics of `metrics`, which computes
them without thinning.
"""

import dataclasses

import numpy as np
import sklearn.metrics

from inp_former_jax.evaluation.metrics import PixelHistograms

POINTS = 160  # of a curve, enough for a picture


@dataclasses.dataclass(frozen=True, eq=False)
class Curve:
  """A curve of points between which it is drawn straight.

  Attributes:
    x: The abscissas, (n,), in ascending or descending order.
    y: The ordinates, (n,).
  """

  x: np.ndarray
  y: np.ndarray

  def thinned(self, points: int = POINTS) -> "Curve":
    """Drops points, evenly along the curve; keeps the first and the last.

    Args:
      points: Largest number of points of the result.
    """
    if len(self.x) <= points:
      return self
    steps = np.abs(np.diff(self.x)) + np.abs(np.diff(self.y))
    length = np.concatenate([[0.0], np.cumsum(steps)])
    wanted = np.linspace(0.0, length[-1], points)
    chosen = np.unique(np.searchsorted(length, wanted, side="left"))
    chosen = np.union1d(chosen[chosen < len(self.x)], [0, len(self.x) - 1])
    return Curve(self.x[chosen], self.y[chosen])


def image_curves(labels: np.ndarray, scores: np.ndarray) -> dict[str, Curve]:
  """Computes the curves of image scores.

  Args:
    labels: Labels of the images, (n,), 1 for a defective image.
    scores: Image scores, (n,).

  Returns:
    The curves "roc" (true over false positive rate) and "precision_recall"
    (precision over recall); none if only one class is present.
  """
  if labels.all() or not labels.any():
    return {}
  fpr, tpr, _ = sklearn.metrics.roc_curve(labels, scores)
  precision, recall, _ = sklearn.metrics.precision_recall_curve(labels, scores)
  return {
    "roc": Curve(fpr, tpr).thinned(),
    "precision_recall": Curve(recall, precision).thinned(),
  }


def pixel_curves(histograms: PixelHistograms) -> dict[str, Curve]:
  """Computes the curves of pixels from the histograms of their scores.

  Args:
    histograms: The histograms of all pixels.

  Returns:
    The curves "roc", "precision_recall" and "pro" (per-region overlap over
    false positive rate); none if no pixel is defective, or none is normal.
  """
  occupied = (histograms.normal + histograms.defective).nonzero()[0][::-1]
  normal, defective, regions = (
    np.concatenate([[0], np.cumsum(counts[occupied])])
    for counts in (histograms.normal, histograms.defective, histograms.regions)
  )
  if not normal[-1:].any() or not defective[-1:].any():
    return {}
  fpr, tpr = normal / normal[-1], defective / defective[-1]
  found = (normal + defective)[1:]
  return {
    "roc": Curve(fpr, tpr).thinned(),
    "precision_recall": Curve(tpr[1:], defective[1:] / found).thinned(),
    "pro": Curve(fpr, regions / regions[-1]).thinned(),
  }
