"""The metrics of each category, from image scores and pixel metrics."""

from collections.abc import Mapping, Sequence

import numpy as np

from inp_former_jax.data.records import Record
from inp_former_jax.evaluation import metrics
from inp_former_jax.evaluation.results import CategoryResult


def category_results(
  records: Sequence[Record],
  scores: np.ndarray,
  pixel_metrics: Mapping[str, dict[str, float]],
) -> dict[str, CategoryResult]:
  """Computes the metrics of each category.

  Args:
    records: The test records.
    scores: The image score of each record, (len(records),).
    pixel_metrics: The pixel metrics by category, of all categories.

  Returns:
    The results by category, in the order of `pixel_metrics`.
  """
  indices: dict[str, list[int]] = {category: [] for category in pixel_metrics}
  for index, record in enumerate(records):
    indices[record.category].append(index)
  return {
    category: _category_result(
      [records[i] for i in indices[category]], scores[indices[category]], found
    )
    for category, found in pixel_metrics.items()
  }


def _category_result(
  records: Sequence[Record],
  scores: np.ndarray,
  pixel_metrics: dict[str, float],
) -> CategoryResult:
  labels = np.array([record.label for record in records])
  result = metrics.image_metrics(labels, scores) | pixel_metrics
  samples = [record.sample for record in records]
  if all(samples):
    result |= _sample_metrics(samples, labels, scores)
  without_mask = sum(r.label == 1 and not r.masks for r in records)
  return CategoryResult(
    metrics=result,
    normal=int((labels == 0).sum()),
    defective=int(labels.sum()),
    without_mask=without_mask,
  )


def _sample_metrics(
  samples: Sequence[str], labels: np.ndarray, scores: np.ndarray
) -> dict[str, float]:
  """Computes metrics of objects, each scored by its highest-scoring view."""
  _, sample = np.unique(samples, return_inverse=True)
  sample_labels = np.zeros(sample.max() + 1, labels.dtype)
  sample_scores = np.full(len(sample_labels), -np.inf, scores.dtype)
  np.maximum.at(sample_labels, sample, labels)
  np.maximum.at(sample_scores, sample, scores)
  found = metrics.image_metrics(sample_labels, sample_scores)
  return {name.replace("image", "sample"): v for name, v in found.items()}
