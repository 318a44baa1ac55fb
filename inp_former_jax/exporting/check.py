"""Compares an exported model with its checkpoint on real images."""

import dataclasses
from collections.abc import Iterator

import numpy as np
import scipy.stats
from sklearn.metrics import roc_auc_score

from inp_former_jax.exporting import answers
from inp_former_jax.exporting.answers import DECISION, MAP, MASK, SCORE
from inp_former_jax.exporting.errors import DifferenceError
from inp_former_jax.exporting.runtimes import Runner
from inp_former_jax.exporting.samples import Samples, labels_by_category
from inp_former_jax.inference.decision import Thresholds
from inp_former_jax.inference.trained import TrainedModel

_BATCH = 8
# A reduced precision may move scores, but must not shuffle them.
_MIN_IMAGES, _MIN_RANK_CORRELATION = 5, 0.5


@dataclasses.dataclass(frozen=True)
class Tolerance:
  """How far an exported model may be from its checkpoint.

  Attributes:
    score: Largest difference of an image score; infinite to check the order of
      the scores alone.
    map: Largest difference of a value of an anomaly map.
  """

  score: float
  map: float


@dataclasses.dataclass(frozen=True)
class Comparison:
  """What a comparison has found.

  Attributes:
    runtime: Name and version of what ran the exported model.
    images: Number of images.
    score: Largest difference of an image score.
    map: Largest difference of a value of an anomaly map.
    decisions: Number of images that are decided differently; None without
      thresholds.
    mask_pixels: Share of the pixels that are decided differently; None without
      thresholds.
    rank_correlation: Spearman's rank correlation of the scores; None for fewer
      than five images.
    image_auroc: The checkpoint's image AUROC, the mean over the categories;
      None without labels.
    exported_image_auroc: The same of the exported model.
  """

  runtime: str
  images: int
  score: float
  map: float
  decisions: int | None
  mask_pixels: float | None
  rank_correlation: float | None
  image_auroc: float | None
  exported_image_auroc: float | None

  def __str__(self) -> str:
    """Describes the differences in a line."""
    parts = [
      f"scores differ by at most {self.score:.1e}",
      f"maps by {self.map:.1e}",
    ]
    if self.decisions is not None and self.mask_pixels is not None:
      parts.append(f"{self.decisions} of {self.images} decisions")
      parts.append(f"{self.mask_pixels:.2%} of the masks' pixels")
    if self.image_auroc is not None and self.exported_image_auroc is not None:
      parts.append(
        f"image AUROC {100 * self.exported_image_auroc:.2f} instead of "
        f"{100 * self.image_auroc:.2f}"
      )
    return f"{self.runtime}: {', '.join(parts)}"


def compare(
  model: TrainedModel,
  runtime: str,
  runner: Runner,
  samples: Samples,
  thresholds: Thresholds | None,
) -> Comparison:
  """Compares the answers of an exported model with those of its checkpoint.

  Args:
    model: The model that was exported.
    runtime: Name and version of what runs the exported model.
    runner: The exported model.
    samples: The images; the first is given alone, the rest in batches.
    thresholds: The thresholds that were exported, or None.

  Returns:
    The differences.

  Raises:
    DifferenceError: If an answer is missing or not finite.
  """
  scores, exported_scores = [], []
  score = anomaly_map = mask_pixels = 0.0
  decisions = 0
  for images in _batches(samples.images):
    expected, found = _expected(model, images, thresholds), runner(images)
    _require_same_kind(runtime, expected, found)
    score = max(score, _largest_difference(expected, found, SCORE))
    anomaly_map = max(anomaly_map, _largest_difference(expected, found, MAP))
    if thresholds is not None:
      decisions += int((expected[DECISION] != found[DECISION]).sum())
      share = np.mean(expected[MASK] != found[MASK])
      mask_pixels += float(share) * len(images) / len(samples.images)
    scores.append(expected[SCORE])
    exported_scores.append(found[SCORE])
  both = np.concatenate(scores), np.concatenate(exported_scores)
  return Comparison(
    runtime=runtime,
    images=len(samples.images),
    score=score,
    map=anomaly_map,
    decisions=None if thresholds is None else decisions,
    mask_pixels=None if thresholds is None else mask_pixels,
    rank_correlation=_rank_correlation(*both),
    image_auroc=_image_auroc(samples, both[0]),
    exported_image_auroc=_image_auroc(samples, both[1]),
  )


def require_close(comparison: Comparison, tolerance: Tolerance) -> None:
  """Refuses an exported model that differs too much.

  Args:
    comparison: What `compare` has found.
    tolerance: The largest differences.

  Raises:
    DifferenceError: If a difference is larger, or the scores have another
      order.
  """
  order = comparison.rank_correlation
  shuffled = (
    tolerance.score == np.inf
    and order is not None
    and order < _MIN_RANK_CORRELATION
  )
  if shuffled:
    raise DifferenceError(
      f"The exported model orders the images differently ({comparison}; rank "
      f"correlation {order:.2f}). Nothing was written. Give more and more "
      "typical `images`, or a higher `precision`."
    )
  if comparison.score > tolerance.score or comparison.map > tolerance.map:
    raise DifferenceError(
      f"The exported model differs from the checkpoint ({comparison}); allowed "
      f"are {tolerance.score:.0e} and {tolerance.map:.0e}. Nothing was written."
    )


def _batches(images: np.ndarray) -> Iterator[np.ndarray]:
  """Yields the first image alone, because the batch must be free."""
  yield images[:1]
  for start in range(1, len(images), _BATCH):
    yield images[start : start + _BATCH]


def _expected(
  model: TrainedModel, images: np.ndarray, thresholds: Thresholds | None
) -> answers.Answers:
  """Returns the checkpoint's answers; it is compiled for one size of batch."""
  missing = _BATCH - len(images)
  padded = np.pad(images, ((0, missing), (0, 0), (0, 0), (0, 0)), mode="edge")
  found = answers.answers(model.predict(padded), thresholds)
  return {k: np.asarray(v)[: len(images)] for k, v in found.items()}


def _require_same_kind(
  runtime: str, expected: answers.Answers, found: answers.Answers
) -> None:
  for name, value in expected.items():
    other = found.get(name)
    if other is None or (other.shape, other.dtype) != (
      value.shape,
      value.dtype,
    ):
      raise DifferenceError(
        f"The exported model gives no `{name}` of shape {value.shape} in "
        f"{runtime}. Nothing was written."
      )
    if not np.isfinite(other).all():
      raise DifferenceError(
        f"The exported model's `{name}` is not finite in {runtime}. Nothing "
        "was written; choose a higher `precision`."
      )


def _largest_difference(
  expected: answers.Answers, found: answers.Answers, name: str
) -> float:
  return float(np.abs(expected[name] - found[name]).max())


def _rank_correlation(a: np.ndarray, b: np.ndarray) -> float | None:
  """Returns Spearman's rank correlation; 0 if only `b` is constant."""
  if len(a) < _MIN_IMAGES or np.ptp(a) == 0:
    return None
  if np.ptp(b) == 0:
    return 0.0
  return float(scipy.stats.spearmanr(a, b).statistic)


def _image_auroc(samples: Samples, scores: np.ndarray) -> float | None:
  values = [
    roc_auc_score(labels, scores[indices])
    for indices, labels in labels_by_category(samples.records).values()
  ]
  return float(np.mean(values)) if values else None
