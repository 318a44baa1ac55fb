"""Thresholds for a false-alarm rate, or for F1, with confidence intervals.

A score is an alarm if it is above the threshold. All thresholds are values
between or at scores of the images they are computed from.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import scipy.stats
import sklearn.metrics

CONFIDENCE = 0.95
_RESAMPLES = 1000


@dataclasses.dataclass(frozen=True)
class Bound:
  """A threshold and the false-alarm rate to expect of it.

  Attributes:
    threshold: The score above which an alarm is raised.
    interval: The 95 % confidence interval of the rate on new normal images.
  """

  threshold: float
  interval: tuple[float, float]


def least_images(rate: float) -> int:
  """Returns the number of normal images that a false-alarm rate needs.

  With fewer, no score among them is high enough for the rate.

  Args:
    rate: The false-alarm rate, in (0, 1).
  """
  return math.ceil(1 / rate - 1e-9) - 1


def image_bound(scores: np.ndarray, rate: float) -> Bound:
  """Finds the threshold for a false-alarm rate on images.

  Of n scores it is the k-th smallest with k = ceil((n + 1) (1 - rate)), the
  split-conformal quantile: a new normal image is above it with a probability of
  at most `rate`, for any distribution (Vovk et al., Algorithmic Learning in a
  Random World, 2005; Angelopoulos and Bates, arXiv 2107.07511, Section 1). If
  there are fewer than `least_images`, it is the highest score. Given these
  scores, the rate of the threshold is distributed as Beta(n + 1 - k, k).

  Args:
    scores: The scores of normal images that the model was not trained on, (n,).
    rate: The false-alarm rate aimed at, in (0, 1).

  Returns:
    The threshold and its rate's interval.
  """
  n = len(scores)
  k = min(math.ceil((n + 1) * (1 - rate) - 1e-9), n)
  tails = (1 - CONFIDENCE) / 2
  low, high = scipy.stats.beta.ppf([tails, 1 - tails], n + 1 - k, k)
  return Bound(float(np.sort(scores)[k - 1]), (float(low), float(high)))


def pixel_bound(pixels: Sequence[np.ndarray], rate: float) -> Bound:
  """Finds the threshold for a false-alarm rate on the pixels of normal images.

  Pixels of one image are alike, so that the number of images, not of pixels,
  says how well the rate is known: the interval is that of the threshold's rate
  when the images are drawn again with replacement (bootstrap, 1,000 times). For
  fewer than about 20 images such an interval is too narrow.

  Args:
    pixels: The values of the anomaly map of each normal image, each (m,).
    rate: The false-alarm rate aimed at, in (0, 1).

  Returns:
    The threshold and its rate's interval.
  """
  image = np.repeat(np.arange(len(pixels)), [len(p) for p in pixels])
  values = np.concatenate(pixels)
  order = np.argsort(values)[::-1]
  values, image = values[order], image[order]
  # The share of the pixels that are above values[i] is i / n. As for images,
  # n + 1 takes the place of n.
  above = max(math.floor((len(values) + 1) * rate + 1e-9) - 1, 0)
  random = np.random.default_rng(0)
  sizes = np.array([len(p) for p in pixels])
  # The thresholds of most draws lie among the highest values.
  tail = min(len(values), 20 * (above + 1) + 1000)
  rates = []
  for _ in range(_RESAMPLES):
    drawn = np.bincount(
      random.integers(len(pixels), size=len(pixels)), minlength=len(pixels)
    )
    allowed = (drawn @ sizes) * rate
    counted = np.cumsum(drawn[image[:tail]])
    while counted[-1] <= allowed and tail < len(values):
      tail = min(2 * tail, len(values))
      counted = np.cumsum(drawn[image[:tail]])
    rates.append(np.searchsorted(counted, allowed, side="right") / len(values))
  tails = (1 - CONFIDENCE) / 2
  low, high = np.quantile(rates, [tails, 1 - tails])
  return Bound(float(values[above]), (float(low), float(high)))


def pixel_rate(
  pixels: Sequence[np.ndarray], threshold: float
) -> tuple[float, tuple[float, float]]:
  """Finds the false-alarm rate of a threshold on the pixels of normal images.

  Args:
    pixels: The values of the anomaly map of each normal image, each (m,).
    threshold: The value above which a pixel is an alarm.

  Returns:
    The mean rate over the images, and its interval by bootstrap.
  """
  shares = np.array([(values > threshold).mean() for values in pixels])
  random = np.random.default_rng(0)
  drawn = random.integers(len(shares), size=(_RESAMPLES, len(shares)))
  tails = (1 - CONFIDENCE) / 2
  low, high = np.quantile(shares[drawn].mean(axis=1), [tails, 1 - tails])
  return float(shares.mean()), (float(low), float(high))


def f1_threshold(labels: np.ndarray, scores: np.ndarray) -> tuple[float, float]:
  """Finds the threshold with the largest F1.

  Args:
    labels: True for what is defective, (n,); both values occur.
    scores: The scores, (n,), higher for what is more anomalous.

  Returns:
    The threshold, halfway between the lowest score that is an alarm and the one
    below it, and the F1.
  """
  precision, recall, values = sklearn.metrics.precision_recall_curve(
    labels, scores
  )
  f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
  best = int(np.argmax(f1[:-1]))
  lowest = values[best]
  below = scores[scores < lowest]
  threshold = (lowest + below.max()) / 2 if below.size else lowest - 1e-6
  return float(threshold), float(f1[best])


def rate_interval(alarms: int, count: int) -> tuple[float, float]:
  """Returns the 95 % confidence interval of a rate (Clopper and Pearson).

  Args:
    alarms: Number of images with an alarm.
    count: Number of images, at least 1.
  """
  interval = scipy.stats.binomtest(alarms, count).proportion_ci(CONFIDENCE)
  return float(interval.low), float(interval.high)
