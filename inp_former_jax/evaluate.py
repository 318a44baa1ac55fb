"""Runs a model over the test set and computes the metrics per category."""

import dataclasses
import os
import pathlib
from collections.abc import Sequence

import jax
import numpy as np
from ml_collections import ConfigDict

from inp_former_jax import experiment, field_ranges, sharding
from inp_former_jax.data import transforms
from inp_former_jax.data.errors import DataError
from inp_former_jax.data.records import Dataset, Record
from inp_former_jax.evaluation.category_results import category_results
from inp_former_jax.evaluation.collector import Collector
from inp_former_jax.evaluation.drawing import grid
from inp_former_jax.evaluation.report import write_report
from inp_former_jax.evaluation.results import (
  Evaluation,
  mean_metrics,
  source_means,
)
from inp_former_jax.evaluation.submission import write_predictions
from inp_former_jax.field_names import naming_fields
from inp_former_jax.inference import trained
from inp_former_jax.inference.calibration import (
  Calibration,
  find_calibration,
)
from inp_former_jax.inference.inp_maps import InpMaps, inp_maps
from inp_former_jax.inference.record_batches import predict_records
from inp_former_jax.inference.trained import TrainedModel
from inp_former_jax.processes import agreement
from inp_former_jax.training import identity
from inp_former_jax.training.checkpoints import (
  saved_runs,
  workdir_lock,
  workdirs,
)
from inp_former_jax.training.progress import announce

INP_IMAGES = 4  # test images in the figure of the INPs


def evaluate(
  model: TrainedModel,
  dataset: Dataset,
  config: ConfigDict,
  calibration: Calibration | None = None,
) -> Evaluation:
  """Runs a model over all test images and computes its metrics.

  Args:
    model: The model. All processes of its mesh call this function.
    dataset: The data set whose test records are evaluated, one category after
      the other.
    config: The config of the run; `evaluation` and `data` are read.
    calibration: Thresholds and colour scale of the model, if it has any; no
      metric depends on them.

  Returns:
    The metrics, equal on all processes; none if there are no test images.

  Raises:
    DataError: If a file cannot be read.
  """
  records = dataset.test_by_category()
  if not records:
    return Evaluation(model.step, {}, {}, untested=dataset.categories)
  settings = config.evaluation
  shown = grid.grid_records(records, settings.grid_images)
  kept = sorted({*shown, *grid.colour_scale_records(records)})
  collector = Collector(
    records,
    kept,
    map_size=model.map_size,
    exact=settings.exact,
    max_fpr=settings.max_fpr,
  )
  reading = experiment.reading(config)
  for batch, prediction in predict_records(model, records, reading):
    collector.add(batch, prediction)
  found = collector.finish()
  categories = category_results(
    records, found.scores, {c: p.metrics for c, p in found.pixels.items()}
  )
  return Evaluation(
    step=model.step,
    categories=categories,
    mean=mean_metrics(categories.values()),
    source_means=source_means(categories, records),
    records=records,
    image_scores=found.scores,
    maps={i: found.maps[i] for i in shown},
    preprocessing=model.preprocessing,
    scale=calibration.scale
    if calibration
    else grid.scale_of_maps(records, found.maps),
    untested=tuple(c for c in dataset.categories if c not in categories),
    worst_maps=found.worst_maps,
    pixel_curves={c: pixels.curves for c, pixels in found.pixels.items()},
    calibration=calibration,
  )


def evaluate_and_report(
  model: TrainedModel,
  dataset: Dataset,
  config: ConfigDict,
  workdir: pathlib.Path,
  *,
  trained_in: pathlib.Path,
) -> Evaluation:
  """Evaluates a model, and writes the report and the predictions.

  Args:
    model: The model. All processes of its mesh call this function.
    dataset: The data set; its test and unlabelled records are predicted.
    config: The config of the run.
    workdir: Folder of the results.
    trained_in: Folder of the model, whose calibration is used if there is one.

  Returns:
    The metrics, equal on all processes; none if there are no test images.

  Raises:
    DataError: If a file cannot be read.
    CalibrationError: If the calibration cannot be read.
  """
  calibration = find_calibration(trained_in, model.step, model.options)
  result = evaluate(model, dataset, config, calibration)
  result = dataclasses.replace(result, inps=_inps(model, result.records))
  write_report(result, config, workdir)
  reading = experiment.reading(config)
  write_predictions(model, dataset.unlabelled, reading, workdir)
  return result


def _inps(model: TrainedModel, records: Sequence[Record]) -> dict[int, InpMaps]:
  """Computes the INP maps of a few test images, by index of their record."""
  chosen = grid.inp_records(records, INP_IMAGES)
  if not chosen or not model.settings.use_inps:
    return {}
  assert model.preprocessing is not None  # or else nothing was predicted
  images = [
    transforms.load_image(records[i].image, model.preprocessing) for i in chosen
  ]
  maps = inp_maps(model, np.stack(images))
  return {
    index: InpMaps(maps.attention[row : row + 1], maps.distance[row : row + 1])
    for row, index in enumerate(chosen)
  }


def check_settings(config: ConfigDict) -> None:
  """Checks the fields of a config before a long run.

  Args:
    config: The config of the run.

  Raises:
    ValueError: If a field is out of range.
  """
  field_ranges.check_fields(config)
  if config.evaluation.exact and jax.process_count() > 1:
    raise ValueError(
      "config.evaluation.exact is True; expected False with "
      f"{jax.process_count()} processes, because it needs all pixels in one."
    )


@naming_fields()
def evaluate_checkpoint(
  config: ConfigDict,
  workdir: str | os.PathLike,
  *,
  results_in: pathlib.Path | None = None,
) -> Evaluation:
  """Evaluates a checkpoint of a workdir and writes the results.

  Args:
    config: The config of the run; fields that change neither the model nor
      the size of its input may differ.
    workdir: The folder of the run.
    results_in: Folder of the results. By default they go to the workdir, or to
      `while_running` within it while a run is under way.

  Returns:
    The metrics of the test set.

  Raises:
    CheckpointError: If there is no checkpoint, or only one of another model.
    DataError: If the data set, or one of its files, cannot be used.
  """
  check_settings(config)
  experiment.preprocessing(config)  # checks the sizes
  zero_shot = config.protocol == field_ranges.ZERO_SHOT
  own = trained_in = workdirs.absolute_workdir(workdir)
  if zero_shot:
    trained_in = _zero_shot_source(config)
  saved_runs.require_checkpoints(trained_in)
  if results_in is not None:
    return _evaluate_in(config, own, trained_in, results_in)
  hold = workdir_lock.holding if zero_shot else workdir_lock.holding_or_beside
  with hold(own) as results:
    return _evaluate_in(config, own, trained_in, results)


def _evaluate_in(
  config: ConfigDict,
  workdir: pathlib.Path,
  trained_in: pathlib.Path,
  results: pathlib.Path,
) -> Evaluation:
  zero_shot = config.protocol == field_ranges.ZERO_SHOT
  mesh = sharding.make_mesh(**config.mesh)
  dataset = experiment.read_dataset(config, workdir)
  require_test_images(dataset, config.data.layout)
  agreement.require_same({"mesh": mesh.shape} | identity.image_lists(dataset))
  if not zero_shot:
    _warn_of_other_training_images(trained_in, dataset)
  # Zero-shot scoring trains nothing, so this field speaks of the other run.
  use = config.checkpoint.use
  announce(f"Loading the {use} checkpoint of {trained_in} ...")
  model = trained.load(
    trained_in,
    mesh,
    expected=config.to_dict(),
    encoder_weights=config.model.encoder_weights,
    dtype=config.model.dtype,
    size=config.evaluation.size,
    top_fraction=config.evaluation.top_fraction,
    zero_shot=zero_shot,
    use=use,
  )
  announce(
    f"Evaluating step {model.step} on {len(dataset.test)} test images ..."
  )
  return evaluate_and_report(
    model, dataset, config, results, trained_in=trained_in
  )


def _warn_of_other_training_images(
  workdir: pathlib.Path, dataset: Dataset
) -> None:
  """Warns if the split has changed since training."""
  _, saved = saved_runs.read_identity(workdir)
  now = identity.training_images(dataset)
  if saved.get("training_images.sha256", now["sha256"]) == now["sha256"]:
    return
  announce(
    f"Warning: the model was trained on {saved['training_images.count']} "
    f"images, and {dataset.name} now has {now['count']} other ones to train "
    "on. Some test images may have been trained on, which makes the metrics "
    "too good: put normal images that the model has not seen into "
    "test_normal/ or test/good/, or train again in another workdir."
  )


def _zero_shot_source(config: ConfigDict) -> pathlib.Path:
  """Returns the workdir whose checkpoint zero-shot scoring uses."""
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


def require_test_images(dataset: Dataset, layout: str = "") -> None:
  """Makes sure that a data set has test images.

  Args:
    dataset: The data set of the run.
    layout: Its layout, which decides where the error message says that test
      images belong.

  Raises:
    DataError: If there are no test images.
  """
  if dataset.test:
    return
  if layout == "folder":
    advice = (
      "The model is trained on normal images alone, which is fine. To "
      "measure it, put defective images into defect/ beside normal/ (masks "
      "into mask/, if there are any), and normal ones that it has not seen "
      "into test_normal/."
    )
  else:
    advice = "Put some into <category>/test/good and <category>/test/<defect>."
  raise DataError(f"{dataset.name} has no test images. {advice}")
