"""Model over the test set -> named metrics per category."""

import dataclasses
import os
from collections.abc import Callable, Iterator, Sequence

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from inp_former_jax import checkpoint, experiment, metrics, sharding
from inp_former_jax.data import loader
from inp_former_jax.data.records import DataError, Dataset, Record
from inp_former_jax.predict import make_predict_step
from inp_former_jax.report import write_report
from inp_former_jax.visualize import ColourScale, colour_scale

COLOUR_SCALE_IMAGES = 100  # normal ones, and as many defective ones


@dataclasses.dataclass(frozen=True)
class CategoryResult:
  """Metrics of one category and what they were computed from.

  Attributes:
    metrics: image_auroc, image_ap, image_f1max, pixel_auroc, pixel_ap,
      pixel_f1max, pixel_aupro, each in [0, 1]; nan where undefined.
    normal: Normal test images.
    defective: Defective test images.
    without_mask: Defective images without a mask: they count in the image
      metrics and are left out of the pixel metrics.
  """

  metrics: dict[str, float]
  normal: int
  defective: int
  without_mask: int


@dataclasses.dataclass(frozen=True)
class Evaluation:
  """Result of an evaluation.

  Attributes:
    step: Training steps the model has had.
    categories: Category -> its result.
    mean: Metric -> mean over the categories where it is defined.
    records: The test records.
    image_scores: (len(records),) float32.
    maps: Index of a record -> its anomaly map (S, S) float32, for the records
      of the qualitative grid.
    scale: The one colour scale of the model; None without a normal image.
  """

  step: int
  categories: dict[str, CategoryResult]
  mean: dict[str, float]
  records: Sequence[Record]
  image_scores: np.ndarray
  maps: dict[int, np.ndarray]
  scale: ColourScale | None


class PixelScores:
  """Accumulates the pixel metrics of one category over batches and hosts."""

  def __init__(self, *, exact: bool, max_fpr: float):
    """Starts empty.

    Args:
      exact: Keep and sort all pixels, rather than three histograms.
      max_fpr: Where AUPRO is cut.
    """
    self._max_fpr = max_fpr
    self._histograms = None if exact else metrics.PixelHistograms()
    self._maps: list[np.ndarray] = []
    self._masks: list[np.ndarray] = []

  def add(self, maps: np.ndarray, masks: np.ndarray) -> None:
    """Adds maps (n, S, S) and masks (n, S, S)."""
    if self._histograms is not None:
      self._histograms.add(maps, masks)
    else:
      self._maps.append(maps.copy())
      self._masks.append(masks.copy())

  def metrics(self) -> dict[str, float]:
    """The pixel metrics over all processes, which all call this."""
    if self._histograms is not None:
      total = sharding.sum_over_processes(self._histograms.to_array())
      histograms = metrics.PixelHistograms.from_array(total)
      return histograms.metrics(self._max_fpr)
    return metrics.exact_pixel_metrics(
      np.concatenate(self._maps),
      np.concatenate(self._masks),
      max_fpr=self._max_fpr,
    )


def evaluate(
  predict_step: Callable,
  trainable,
  frozen,
  dataset: Dataset,
  config: ConfigDict,
  mesh: Mesh,
  *,
  step: int,
) -> Evaluation:
  """Runs the model over all test images, category by category.

  Args:
    predict_step: As `predict.make_predict_step` gives it.
    trainable: Trainable state of the model.
    frozen: Frozen state of the model.
    dataset: Its test records are evaluated.
    config: The run's config.
    mesh: Over all devices of all processes, each of which calls this.
    step: Training steps the model has had.

  Returns:
    The metrics, equal on all processes.

  Raises:
    DataError: A file cannot be read; named.
    ValueError: Exact metrics with several processes.
  """
  settings = config.evaluation
  if settings.exact and jax.process_count() > 1:
    raise ValueError(
      "config.evaluation.exact=True needs all pixels in one process; with "
      f"{jax.process_count()} processes use the streaming metrics."
    )
  records = dataset.test
  grid = grid_records(records, settings.grid_images)
  kept = sorted({*grid, *_every_kth(records, 0), *_every_kth(records, 1)})
  # Each process fills in the rows it has seen; the sum is the whole.
  scores = np.zeros(len(records), np.float32)
  maps = np.zeros((len(kept), settings.size, settings.size), np.float32)
  pixel_metrics = {}
  for category in dict.fromkeys(r.category for r in records):
    indices = [i for i, r in enumerate(records) if r.category == category]
    pixels = PixelScores(exact=settings.exact, max_fpr=settings.max_fpr)
    for batch in _test_batches([records[i] for i in indices], config, mesh):
      images = sharding.to_global(batch["image"], sharding.batch_sharding(mesh))
      prediction = predict_step(trainable, frozen, images)
      batch_maps = sharding.to_local(prediction.anomaly_map)
      batch_scores = sharding.to_local(prediction.image_score)
      counted = batch["valid"] & batch["has_mask"]
      pixels.add(batch_maps[counted], batch["mask"][counted])
      for row in np.flatnonzero(batch["valid"]):
        index = indices[batch["index"][row]]
        scores[index] = batch_scores[row]
        if index in kept:
          maps[kept.index(index)] = batch_maps[row]
    pixel_metrics[category] = pixels.metrics()
  scores = sharding.sum_over_processes(scores)
  maps = dict(zip(kept, sharding.sum_over_processes(maps), strict=True))
  categories = {
    category: _category_result(category, records, scores, pixel)
    for category, pixel in pixel_metrics.items()
  }
  return Evaluation(
    step=step,
    categories=categories,
    mean=_mean_metrics(categories),
    records=records,
    image_scores=scores,
    maps={i: maps[i] for i in grid},
    scale=_colour_scale(records, maps),
  )


def _test_batches(
  records: Sequence[Record], config: ConfigDict, mesh: Mesh
) -> Iterator[dict[str, np.ndarray]]:
  """Batches of one category, rounded up so that all devices share them."""
  batch_size = -(-config.evaluation.batch_size // mesh.size) * mesh.size
  return loader.evaluation_batches(
    records,
    experiment.preprocessing(config),
    batch_size=batch_size,
    evaluation_size=config.evaluation.size,
    num_workers=config.data.num_workers,
    num_threads=config.data.num_threads,
    process_index=jax.process_index(),
    process_count=jax.process_count(),
  )


def _category_result(
  category: str,
  records: Sequence[Record],
  scores: np.ndarray,
  pixel_metrics: dict[str, float],
) -> CategoryResult:
  indices = [i for i, r in enumerate(records) if r.category == category]
  labels = np.array([records[i].label for i in indices])
  without_mask = sum(
    records[i].label == 1 and records[i].mask is None for i in indices
  )
  return CategoryResult(
    metrics=metrics.image_metrics(labels, scores[indices]) | pixel_metrics,
    normal=int((labels == 0).sum()),
    defective=int(labels.sum()),
    without_mask=without_mask,
  )


def _mean_metrics(categories: dict[str, CategoryResult]) -> dict[str, float]:
  """Mean over the categories that define a metric; nan where none does."""
  results = [c.metrics for c in categories.values()]
  mean = {}
  for name in results[0]:
    values = [m[name] for m in results if not np.isnan(m[name])]
    mean[name] = float(np.mean(values)) if values else float("nan")
  return mean


def grid_records(records: Sequence[Record], count: int) -> list[int]:
  """Chooses records for the qualitative grid: all kinds of all categories.

  Args:
    records: Test records.
    count: Largest number of records chosen.

  Returns:
    Indices of records, ascending: the first of every category and defect in
    turn, then the second ones, until there are enough.
  """
  kinds: dict[tuple[str, str], list[int]] = {}
  for i, record in enumerate(records):
    kinds.setdefault((record.category, record.defect), []).append(i)
  rounds = max((len(indices) for indices in kinds.values()), default=0)
  in_turn = [
    indices[r]
    for r in range(rounds)
    for indices in kinds.values()
    if r < len(indices)
  ]
  return sorted(in_turn[:count])


def _every_kth(records: Sequence[Record], label: int) -> list[int]:
  """At most COLOUR_SCALE_IMAGES records of a label, evenly spread."""
  indices = [i for i, r in enumerate(records) if r.label == label]
  stride = -(-len(indices) // COLOUR_SCALE_IMAGES) or 1
  return indices[::stride]


def _colour_scale(
  records: Sequence[Record], maps: dict[int, np.ndarray]
) -> ColourScale | None:
  normal = [m for i, m in maps.items() if records[i].label == 0]
  defective = [m for i, m in maps.items() if records[i].label == 1]
  return colour_scale(normal, defective) if normal else None


def evaluate_checkpoint(
  config: ConfigDict, workdir: str | os.PathLike
) -> Evaluation:
  """Evaluates the newest checkpoint of a workdir and writes the results.

  Args:
    config: Of the run that trained; fields that do not touch the model or
      the size of its input may differ.
    workdir: Of that run.

  Returns:
    The metrics of the test set.

  Raises:
    CheckpointError: There is no checkpoint, or one of another model.
    DataError: The data set, or one of its files; named.
  """
  workdir = checkpoint.prepare_workdir(workdir, needed=0)
  mesh = sharding.make_mesh(**config.mesh)
  dataset = experiment.read_dataset(config, workdir)
  require_test_images(dataset)
  model = experiment.create_model(config, mesh)
  checkpointer = checkpoint.Checkpointer(
    workdir / "checkpoints",
    experiment.identity(config, model.encoder_sha256),
  )
  shardings = sharding.parameter_shardings(mesh, model.trainable)
  trainable = checkpointer.restore_trainable(
    checkpoint.abstract(model.trainable, shardings)
  )
  step = checkpointer.latest_step
  checkpointer.close()
  predict_step = make_predict_step(
    model.graphdef,
    mesh,
    size=config.evaluation.size,
    top_fraction=config.evaluation.top_fraction,
  )
  result = evaluate(
    predict_step, trainable, model.frozen, dataset, config, mesh, step=step
  )
  write_report(result, config, workdir)
  return result


def require_test_images(dataset: Dataset) -> None:
  """Raises DataError if there is nothing to evaluate."""
  if not dataset.test:
    raise DataError(
      f"{dataset.name} has no test images. Put some into "
      "<category>/test/good and <category>/test/<defect>."
    )
