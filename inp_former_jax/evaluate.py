"""Model over the test set -> named metrics per category."""

import os
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from ml_collections import ConfigDict

from inp_former_jax import experiment, sharding
from inp_former_jax.data.errors import DataError
from inp_former_jax.data.records import Dataset, Record
from inp_former_jax.evaluation import metrics
from inp_former_jax.evaluation.collector import Collector
from inp_former_jax.evaluation.figures import ColourScale, colour_scale
from inp_former_jax.evaluation.report import (
  CategoryResult,
  Evaluation,
  write_report,
)
from inp_former_jax.evaluation.submission import write_predictions
from inp_former_jax.inference.predict_step import Prediction, make_predict_step
from inp_former_jax.inference.record_batches import predict_records
from inp_former_jax.training import checkpoint

COLOUR_SCALE_IMAGES = 100  # normal ones, and as many defective ones


def evaluate(
  predict_step: Callable[..., Prediction],
  trainable: nnx.State,
  frozen: nnx.State,
  dataset: Dataset,
  config: ConfigDict,
  mesh: Mesh,
  *,
  step: int,
) -> Evaluation:
  """Runs the model over all test images.

  Args:
    predict_step: As `predict.make_predict_step` gives it.
    trainable: Trainable state of the model.
    frozen: Frozen state of the model.
    dataset: Its test records are evaluated, those of a category together.
    config: The run's config.
    mesh: Over all devices of all processes, each of which calls this.
    step: Training steps the model has had.

  Returns:
    The metrics, equal on all processes; without test images there are none.

  Raises:
    DataError: A file cannot be read; named.
  """
  records = sorted(
    dataset.test, key=lambda r: dataset.categories.index(r.category)
  )
  if not records:
    return Evaluation(step, {}, {}, untested=dataset.categories)
  grid = grid_records(records, config.evaluation.grid_images)
  kept = sorted({*grid, *_every_kth(records, 0), *_every_kth(records, 1)})
  collector = Collector(records, kept, config.evaluation)
  predictions = predict_records(
    lambda images: predict_step(trainable, frozen, images),
    records,
    config,
    mesh,
  )
  for batch, prediction in predictions:
    collector.add(batch, prediction)
  scores, maps, pixel_metrics = collector.finish()
  categories = {
    category: _category_result(category, records, scores, pixel)
    for category, pixel in pixel_metrics.items()
  }
  return Evaluation(
    step=step,
    categories=categories,
    mean=mean_metrics(categories.values()),
    source_means=source_means(categories, records),
    records=records,
    image_scores=scores,
    maps={i: maps[i] for i in grid},
    scale=_colour_scale(records, maps),
    untested=tuple(c for c in dataset.categories if c not in categories),
  )


def _category_result(
  category: str,
  records: Sequence[Record],
  scores: np.ndarray,
  pixel_metrics: dict[str, float],
) -> CategoryResult:
  indices = [i for i, r in enumerate(records) if r.category == category]
  labels = np.array([records[i].label for i in indices])
  result = metrics.image_metrics(labels, scores[indices]) | pixel_metrics
  samples = [records[i].sample for i in indices]
  if all(samples):
    result |= _sample_metrics(samples, labels, scores[indices])
  without_mask = sum(
    records[i].label == 1 and not records[i].masks for i in indices
  )
  return CategoryResult(
    metrics=result,
    normal=int((labels == 0).sum()),
    defective=int(labels.sum()),
    without_mask=without_mask,
  )


def _sample_metrics(
  samples: Sequence[str], labels: np.ndarray, scores: np.ndarray
) -> dict[str, float]:
  """Metrics of objects seen in several views: the largest score counts."""
  _, sample = np.unique(samples, return_inverse=True)
  sample_labels = np.zeros(sample.max() + 1, labels.dtype)
  sample_scores = np.full(len(sample_labels), -np.inf, scores.dtype)
  np.maximum.at(sample_labels, sample, labels)
  np.maximum.at(sample_scores, sample, scores)
  found = metrics.image_metrics(sample_labels, sample_scores)
  return {name.replace("image", "sample"): v for name, v in found.items()}


def mean_metrics(
  categories: Iterable[CategoryResult],
) -> dict[str, float]:
  """Mean over the categories that define a metric; nan where none does.

  Args:
    categories: At least one.

  Returns:
    Metric -> mean.
  """
  results = [c.metrics for c in categories]
  mean = {}
  for name in dict.fromkeys(name for m in results for name in m):
    values = [m[name] for m in results if not np.isnan(m.get(name, np.nan))]
    mean[name] = float(np.mean(values)) if values else float("nan")
  return mean


def source_means(
  categories: Mapping[str, CategoryResult], records: Sequence[Record]
) -> dict[str, dict[str, float]]:
  """Means by data set; empty unless several are mixed.

  Args:
    categories: Category -> its result.
    records: Test records.
  """
  sources = {r.category: r.source for r in records}
  by_source: dict[str, list[CategoryResult]] = {}
  for name, result in categories.items():
    by_source.setdefault(sources[name], []).append(result)
  if len(by_source) < 2:
    return {}
  return {name: mean_metrics(found) for name, found in by_source.items()}


def grid_records(records: Sequence[Record], count: int) -> list[int]:
  """Chooses records for the qualitative grid: all categories alike.

  Args:
    records: Test records.
    count: Largest number of records chosen.

  Returns:
    Indices of records, by category and in each the normal ones first. Every
    category gives a normal image, then one of every defect in turn, until
    there are enough.
  """
  by_category: dict[str, list[int]] = {}
  for category in dict.fromkeys(r.category for r in records):
    kinds: dict[str, list[int]] = {}
    for i, record in enumerate(records):
      if record.category == category:
        kinds.setdefault(record.defect, []).append(i)
    # The normal images come first, of each kind the first image first.
    kinds = dict(sorted(kinds.items(), key=lambda kind: kind[0] != "good"))
    by_category[category] = _in_turn(list(kinds.values()))
  chosen = _in_turn(list(by_category.values()))[:count]
  return sorted(
    chosen, key=lambda i: (records[i].category, records[i].label, i)
  )


def _in_turn(lists: Sequence[Sequence[int]]) -> list[int]:
  """The first of every list, then the second ones, and so on."""
  return [
    items[k]
    for k in range(max(map(len, lists), default=0))
    for items in lists
    if k < len(items)
  ]


def _every_kth(records: Sequence[Record], label: int) -> list[int]:
  """At most COLOUR_SCALE_IMAGES records of a label, evenly spread."""
  indices = [i for i, r in enumerate(records) if r.label == label]
  stride = -(-len(indices) // COLOUR_SCALE_IMAGES) or 1
  return indices[::stride]


def _colour_scale(
  records: Sequence[Record], maps: Mapping[int, np.ndarray]
) -> ColourScale:
  """The scale of normal and defective maps; of all, if none is normal."""
  normal = [m for i, m in maps.items() if records[i].label == 0]
  defective = [m for i, m in maps.items() if records[i].label == 1]
  return colour_scale(normal or defective, defective)


def check_settings(config: ConfigDict) -> None:
  """Checks `config.evaluation` before a long training.

  Args:
    config: The run's config.

  Raises:
    ValueError: A field is out of range; named.
  """
  settings = config.evaluation
  for name, sound, expected in (
    ("batch_size", settings.batch_size > 0, "above 0"),
    ("size", settings.size > 0, "above 0"),
    ("grid_images", settings.grid_images >= 0, "0 or more"),
    ("top_fraction", 0 < settings.top_fraction <= 1, "within (0, 1]"),
    ("max_fpr", 0 < settings.max_fpr <= 1, "within (0, 1]"),
    (
      "exact",
      not settings.exact or jax.process_count() == 1,
      f"False with {jax.process_count()} processes, for it needs all pixels "
      "in one",
    ),
  ):
    if not sound:
      raise ValueError(
        f"config.evaluation.{name} is {settings[name]}; expected {expected}."
      )


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
  check_settings(config)
  zero_shot = config.protocol == "zero_shot"
  trained = pathlib.Path(workdir).expanduser().absolute()
  if zero_shot:
    trained = _zero_shot_source(config)
  folder = trained / "checkpoints"
  if not folder.is_dir():
    raise checkpoint.CheckpointError(
      f"No checkpoint in {folder}. Train first: the same command with "
      "--mode=train."
    )
  workdir = checkpoint.prepare_workdir(workdir, needed=0)
  mesh = sharding.make_mesh(**config.mesh)
  dataset = experiment.read_dataset(config, workdir)
  require_test_images(dataset)
  model = experiment.create_model(config, mesh, trained)
  shardings = sharding.parameter_shardings(mesh, model.trainable)
  identity = experiment.identity(config, dataset, model.encoder_sha256)
  with checkpoint.Checkpointer(folder, identity) as checkpointer:
    trainable = checkpointer.restore_trainable(
      checkpoint.abstract(model.trainable, shardings)
    )
    step = checkpointer.latest_step
  predict_step = make_predict_step(
    model.graphdef,
    mesh,
    size=config.evaluation.size,
    top_fraction=config.evaluation.top_fraction,
    zero_shot=zero_shot,
  )
  result = evaluate(
    predict_step, trainable, model.frozen, dataset, config, mesh, step=step
  )
  write_report(result, config, workdir)
  write_predictions(
    lambda images: predict_step(trainable, model.frozen, images),
    dataset.unlabelled,
    config,
    mesh,
    workdir,
  )
  return result


def _zero_shot_source(config: ConfigDict) -> pathlib.Path:
  """The workdir that zero-shot scoring takes its checkpoint from."""
  if not config.zero_shot_checkpoint:
    raise ValueError(
      "Zero-shot scoring needs a model trained elsewhere: set "
      "--config.zero_shot_checkpoint=WORKDIR to the workdir of its run."
    )
  if not config.model.use_inps:
    raise ValueError(
      "Zero-shot scores are distances to INPs; config.model.use_inps is False."
    )
  return pathlib.Path(config.zero_shot_checkpoint).expanduser().absolute()


def require_test_images(dataset: Dataset) -> None:
  """Raises DataError if there is nothing to evaluate."""
  if not dataset.test:
    raise DataError(
      f"{dataset.name} has no test images. Put some into "
      "<category>/test/good and <category>/test/<defect>."
    )
