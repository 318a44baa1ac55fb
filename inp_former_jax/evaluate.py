"""Model over the test set -> named metrics per category."""

import os
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from ml_collections import ConfigDict

from inp_former_jax import checkpoint, experiment, metrics, sharding
from inp_former_jax.collector import Collector
from inp_former_jax.data import loader
from inp_former_jax.data.records import DataError, Dataset, Record
from inp_former_jax.predict import Prediction, make_predict_step
from inp_former_jax.report import CategoryResult, Evaluation, write_report
from inp_former_jax.visualize import ColourScale, colour_scale

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
    The metrics, equal on all processes.

  Raises:
    DataError: A file cannot be read; named.
  """
  records = sorted(
    dataset.test, key=lambda r: dataset.categories.index(r.category)
  )
  grid = grid_records(records, config.evaluation.grid_images)
  kept = sorted({*grid, *_every_kth(records, 0), *_every_kth(records, 1)})
  collector = Collector(records, kept, config.evaluation)
  predictions = _predictions(
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
    mean=_mean_metrics(categories),
    records=records,
    image_scores=scores,
    maps={i: maps[i] for i in grid},
    scale=_colour_scale(records, maps),
    untested=tuple(c for c in dataset.categories if c not in categories),
  )


def _predictions(
  predict: Callable[[jax.Array], Prediction],
  records: Sequence[Record],
  config: ConfigDict,
  mesh: Mesh,
) -> Iterator[tuple[dict[str, np.ndarray], Prediction]]:
  """Batches of this process's records with their predictions.

  A prediction is handed out when the next one is under way, so that the
  device does not wait for the host.
  """
  # Rounded up so that all devices share a batch evenly.
  batch_size = -(-config.evaluation.batch_size // mesh.size) * mesh.size
  batches = loader.evaluation_batches(
    records,
    experiment.preprocessing(config),
    batch_size=batch_size,
    evaluation_size=config.evaluation.size,
    num_workers=config.data.num_workers,
    num_threads=config.data.num_threads,
    process_index=jax.process_index(),
    process_count=jax.process_count(),
  )
  before = None
  for batch in batches:
    image = sharding.to_global(
      batch.pop("image"), sharding.batch_sharding(mesh)
    )
    under_way = batch, predict(image)
    if before:
      yield before
    before = under_way
  if before:
    yield before


def _category_result(
  category: str,
  records: Sequence[Record],
  scores: np.ndarray,
  pixel_metrics: dict[str, float],
) -> CategoryResult:
  indices = [i for i, r in enumerate(records) if r.category == category]
  labels = np.array([records[i].label for i in indices])
  without_mask = sum(
    records[i].label == 1 and not records[i].masks for i in indices
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
  folder = pathlib.Path(workdir).expanduser().absolute() / "checkpoints"
  if not folder.is_dir():
    raise checkpoint.CheckpointError(
      f"No checkpoint in {folder}. Train first: the same command with "
      "--mode=train."
    )
  workdir = checkpoint.prepare_workdir(workdir, needed=0)
  mesh = sharding.make_mesh(**config.mesh)
  dataset = experiment.read_dataset(config, workdir)
  require_test_images(dataset)
  model = experiment.create_model(config, mesh, workdir)
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
