"""Collects predictions over batches, devices and hosts into metrics."""

import dataclasses
from collections.abc import Mapping, Sequence

import jax
import numpy as np

from inp_former_jax import sharding
from inp_former_jax.data.records import Record
from inp_former_jax.evaluation import curves, metrics
from inp_former_jax.evaluation.curves import Curve
from inp_former_jax.evaluation.worst_cases import RunningWorstMaps
from inp_former_jax.inference.predict_step import Prediction
from inp_former_jax.processes import exchange


@dataclasses.dataclass(frozen=True)
class PixelResult:
  """What the pixels of a category give.

  Attributes:
    metrics: The metrics by name, as fractions in [0, 1], or nan where
      undefined.
    curves: The curves "roc", "precision_recall" and "pro"; none where
      undefined.
  """

  metrics: dict[str, float]
  curves: dict[str, Curve]


@dataclasses.dataclass(frozen=True)
class Collected:
  """What a model gave for all records, equal on all processes.

  Attributes:
    scores: The image scores, (len(records),) float32.
    maps: The kept anomaly maps, (S, S) float32, by index of their record.
    worst_maps: The maps of the worst misses and false alarms, likewise.
    pixels: What the pixels gave, by category.
  """

  scores: np.ndarray
  maps: dict[int, np.ndarray]
  worst_maps: dict[int, np.ndarray]
  pixels: dict[str, PixelResult]


class PixelScores:
  """Accumulates the pixels of one category over batches and hosts."""

  def __init__(self, *, exact: bool, max_fpr: float):
    """Starts without any pixels.

    Args:
      exact: Whether all pixels are kept and sorted, rather than counted in
        three histograms.
      max_fpr: False positive rate at which AUPRO is cut.
    """
    self._max_fpr = max_fpr
    self._histograms = None if exact else metrics.PixelHistograms()
    self._maps: list[np.ndarray] = []
    self._masks: list[np.ndarray] = []

  def add(self, maps: np.ndarray, masks: np.ndarray) -> None:
    """Adds the pixels of some images.

    Args:
      maps: Anomaly maps, (n, S, S).
      masks: Ground truth, (n, S, S), True for a defective pixel.
    """
    if self._histograms is not None:
      self._histograms.add(maps, masks)
    else:
      self._maps.append(maps.copy())
      self._masks.append(masks.copy())

  def finish(self) -> PixelResult:
    """Sums over all processes, which must all call this.

    Returns:
      The metrics and the curves of all pixels.
    """
    if self._histograms is not None:
      total = exchange.sum_over_processes(self._histograms.to_array())
      histograms = metrics.PixelHistograms.from_array(total)
      values = histograms.metrics(self._max_fpr)
    else:
      none = np.zeros((0, 1, 1), np.float32)
      maps = np.concatenate(self._maps) if self._maps else none
      masks = np.concatenate(self._masks) if self._masks else none
      values = metrics.exact_pixel_metrics(maps, masks, max_fpr=self._max_fpr)
      histograms = metrics.PixelHistograms()  # exact enough to be drawn
      histograms.add(maps, masks)
    return PixelResult(values, curves.pixel_curves(histograms))


class Collector:
  """Collects predictions over batches and processes.

  Each process fills in the scores and maps of its own images, and the sum over
  the processes is complete. The pixel metrics of a category are computed after
  the batch with its last image, which is the same batch on every process, so
  that only one category at a time is in memory. A process may have any share
  of the images, or none, as long as it adds as many batches as the others.
  """

  def __init__(
    self,
    records: Sequence[Record],
    kept: Sequence[int],
    *,
    map_size: int,
    exact: bool,
    max_fpr: float,
  ):
    """Starts without any predictions.

    Args:
      records: All records, sorted so that each category is contiguous.
      kept: Indices of the records whose maps are kept.
      map_size: Side of the anomaly maps in pixels.
      exact: Whether all pixels are kept and sorted, rather than counted in
        three histograms. It takes a single process, which has all pixels.
      max_fpr: False positive rate at which AUPRO is cut.

    Raises:
      ValueError: If `exact` is True and there are several processes.
    """
    if exact and jax.process_count() > 1:
      raise ValueError(
        f"`exact` is True; expected False with {jax.process_count()} "
        "processes, because it needs all pixels in one."
      )
    self._records = records
    self._kept = {index: place for place, index in enumerate(kept)}
    self._exact, self._max_fpr = exact, max_fpr
    self._scores = np.zeros(len(records), np.float32)
    self._maps = np.zeros((len(kept), map_size, map_size), np.float32)
    self._pixels: dict[str, PixelScores] = {}
    self._worst = RunningWorstMaps(records)
    self._finished: dict[str, PixelResult] = {}
    # For every category, the index after its last record.
    self._ends = {r.category: i + 1 for i, r in enumerate(records)}
    self._seen = 0

  def add(
    self, batch: Mapping[str, np.ndarray], prediction: Prediction
  ) -> None:
    """Adds this process's part of a global batch.

    Args:
      batch: This process's part of the batch, as `loader.evaluation_batches`
        yields it; images are not needed.
      prediction: The prediction of the global batch.
    """
    maps = sharding.to_local(prediction.anomaly_map)
    scores = sharding.to_local(prediction.image_score)
    by_category: dict[str, list[int]] = {}
    for row in np.flatnonzero(batch["valid"]).tolist():
      index = int(batch["index"][row])
      self._scores[index] = scores[row]
      self._worst.add(index, float(scores[row]), maps[row])
      if index in self._kept:
        self._maps[self._kept[index]] = maps[row]
      if batch["has_mask"][row]:
        category = self._records[index].category
        by_category.setdefault(category, []).append(row)
    for category, rows in by_category.items():
      self._pixels_of(category).add(maps[rows], batch["mask"][rows])
    self._seen += len(batch["valid"]) * jax.process_count()
    self._sum_up_categories()

  def _pixels_of(self, category: str) -> PixelScores:
    empty = PixelScores(exact=self._exact, max_fpr=self._max_fpr)
    return self._pixels.setdefault(category, empty)

  def _sum_up_categories(self) -> None:
    for category, end in self._ends.items():
      if end <= self._seen and category not in self._finished:
        self._finished[category] = self._pixels_of(category).finish()
        del self._pixels[category]

  def finish(self) -> Collected:
    """Sums over all processes, which must all call this."""
    maps = exchange.sum_over_processes(self._maps)
    scores = exchange.sum_over_processes(self._scores)
    return Collected(
      scores=scores,
      maps=dict(zip(self._kept, maps, strict=True)),
      worst_maps=self._worst.finish(scores, self._maps.shape[-1]),
      pixels=self._finished,
    )
