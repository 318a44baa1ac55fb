"""Runs a protocol: one model for all categories, one for each, or zero-shot."""

import dataclasses
import functools
import json
import os
import pathlib
import unicodedata
from collections.abc import Callable, Sequence

import jax
from ml_collections import ConfigDict

from inp_former_jax import (
  config_files,
  evaluate,
  experiment,
  field_ranges,
  train,
  workdir_owner,
)
from inp_former_jax.data.names import path_within
from inp_former_jax.evaluation import report, results
from inp_former_jax.field_names import naming_fields
from inp_former_jax.field_ranges import MULTI_CLASS, SINGLE_CLASS, ZERO_SHOT
from inp_former_jax.processes import agreement, exchange
from inp_former_jax.processes.preemption import Preemption
from inp_former_jax.training import identity
from inp_former_jax.training.checkpoints import workdir_lock, workdirs
from inp_former_jax.training.checkpoints.checkpoint import no_checkpoint
from inp_former_jax.training.progress import announce

Run = Callable[[ConfigDict, str | os.PathLike], results.Evaluation]


@naming_fields()
def train_and_evaluate(
  config: ConfigDict,
  workdir: str | os.PathLike,
  *,
  preemption: Preemption | None = None,
) -> results.Evaluation:
  """Trains a model by the protocol of the config, and evaluates it.

  Args:
    config: The config of the run, for example of `load_config("mvtec")`;
      configs/common.py describes its fields.
    workdir: Folder for checkpoints, logs and results. A run that was stopped
      is resumed when it is started again with the same config and workdir,
      and ends with exactly the parameters of an uninterrupted run.
    preemption: What tells the run to save and stop. The main command gives one
      that handles signals; None leaves them alone.

  Returns:
    The metrics of the test set; none if there are no test images.

  Raises:
    DataError: If the data set, or one of its files, cannot be used.
    CheckpointError: If the workdir cannot be written, is in use, or belongs to
      another run.
    ValueError: If a field of the config has a value that cannot be used, or
      the processes disagree on one.
    Stopped: If the run was told to stop, and has saved its state.
  """
  _check(config)
  config = config_files.with_absolute_paths(config)
  workdir_owner.require_same_protocol(config, workdir)
  if config.protocol == ZERO_SHOT:
    result = evaluate.evaluate_checkpoint(config, workdir)
    workdir_owner.record(config, workdir)
    return result
  run = functools.partial(train.train_and_evaluate, preemption=preemption)
  if config.protocol == SINGLE_CLASS:
    with workdir_lock.holding(workdir) as path:
      result = _each_category(run, config, path, path)
      workdir_owner.record(config, path)
    return result
  return run(config, workdir)


@naming_fields()
def evaluate_checkpoint(
  config: ConfigDict, workdir: str | os.PathLike
) -> results.Evaluation:
  """Evaluates a checkpoint that `train_and_evaluate` has written.

  Args:
    config: The config of the run; fields that change neither the model nor
      the size of its input may differ. `checkpoint.use` names the checkpoint.
    workdir: The folder of the run. While the run is under way, the results are
      written to `while_running` within it.

  Returns:
    The metrics of the test set.

  Raises:
    CheckpointError: If there is no checkpoint, or only one of another model.
    DataError: If the data set, or one of its files, cannot be used.
    ValueError: If a field of the config has a value that cannot be used.
  """
  _check(config)
  config = config_files.with_absolute_paths(config)
  if config.protocol == SINGLE_CLASS:
    own = workdirs.absolute_workdir(workdir)
    if not own.is_dir():
      raise no_checkpoint(own)
    with workdir_lock.holding_or_beside(own) as folder:
      run = evaluate.evaluate_checkpoint
      if folder != own:
        run = functools.partial(_evaluate_beside, own, folder)
      return _each_category(run, config, own, folder, again=True)
  return evaluate.evaluate_checkpoint(config, workdir)


def _evaluate_beside(
  workdir: pathlib.Path,
  beside: pathlib.Path,
  config: ConfigDict,
  folder: pathlib.Path,
) -> results.Evaluation:
  """Evaluates a category of a run that is under way, and leaves its results."""
  place = beside / folder.relative_to(workdir)
  return evaluate.evaluate_checkpoint(config, folder, results_in=place)


def _check(config: ConfigDict) -> None:
  field_ranges.check_fields(config)
  if config.protocol == ZERO_SHOT and config.init_from:
    raise ValueError(
      f"config.init_from is {config.init_from}, but zero-shot scoring does not "
      "train. Name the workdir by --config.zero_shot_checkpoint instead."
    )
  agreement.require_same(identity.shared_fields(config.to_dict()))


def _each_category(
  run: Run,
  config: ConfigDict,
  workdir: pathlib.Path,
  report_folder: pathlib.Path,
  *,
  again: bool = False,
) -> results.Evaluation:
  """Runs one model per category in turn, and reports them in one table.

  Every category has a workdir of its own inside this one. A category that
  already has metrics of this very config, and of its last step, is run again
  only if `again` is set.
  """
  dataset = experiment.read_dataset(config, workdir)
  # What is exchanged below depends on which categories have test images.
  agreement.require_same(identity.image_lists(dataset))
  folders = _folders(workdir, dataset.categories)
  if not again and not any(
    (folder / config_files.RECORDED).exists() for folder in folders.values()
  ):
    # What is stopped can be resumed by it.
    workdir_owner.record(config, workdir)
  found: dict[str, results.CategoryResult] = {}
  untested, step = [], 0
  tested = {record.category for record in dataset.test}
  for number, category in enumerate(dataset.categories, start=1):
    own = _of_category(config, category)
    folder = folders[category]
    if category not in tested:
      untested.append(category)
      if not again:
        own.checkpoint.best = ""  # which nothing could decide
        run(own, folder)
      continue
    result = None if again else _finished(own, folder)
    if result is None:
      announce(f"Category {number} of {len(dataset.categories)}: {category}")
      evaluation = run(own, folder)
      result = evaluation.step, evaluation.categories
    step, categories = result
    found |= categories
  whole = results.Evaluation(
    step=step,
    categories=found,
    mean=results.mean_metrics(found.values()) if found else {},
    source_means=results.source_means(found, dataset.test),
    untested=tuple(untested),
  )
  report.write_report(whole, config, report_folder)
  return whole


def _folders(
  workdir: pathlib.Path, categories: Sequence[str]
) -> dict[str, pathlib.Path]:
  """Returns the workdir of each category.

  Raises:
    ValueError: If one would lie outside of the workdir, or within another one,
      or be the same on a file system that ignores case.
  """
  folders = {name: path_within(workdir, name) for name in categories}
  own = {
    "checkpoints": "the checkpoints of a model of all categories",
    workdir_lock.WHILE_RUNNING: "the results beside a run",
  }
  taken = {path_within(workdir, name): whose for name, whose in own.items()}
  for name, folder in folders.items():
    folded = unicodedata.normalize("NFC", name).casefold()
    place = path_within(workdir, folded)
    for other, whose in taken.items():
      if place == other or place in other.parents or other in place.parents:
        raise ValueError(
          f"The category {name!r} would share the folder {folder} with "
          f"{whose}. Rename it, or leave it out by config.data.categories."
        )
    taken[place] = f"the category {name!r}"
  return folders


def _finished(
  config: ConfigDict, folder: pathlib.Path
) -> tuple[int, dict[str, results.CategoryResult]] | None:
  """Returns the metrics of a category's last step, if it has been reached.

  The first process decides for all: it writes them, and others may see the
  folder later, or have another config of their host.
  """
  text = ""
  if jax.process_index() == 0:
    found = _last_metrics(config, folder)
    text = json.dumps(
      found
      and [found[0], {k: dataclasses.asdict(v) for k, v in found[1].items()}]
    )
  found = json.loads(exchange.from_first_process(text))
  if found is None:
    return None
  step, categories = found
  return step, {k: results.CategoryResult(**v) for k, v in categories.items()}


def _last_metrics(
  config: ConfigDict, folder: pathlib.Path
) -> tuple[int, dict[str, results.CategoryResult]] | None:
  """Reads a category's metrics, unless they are of an unfinished run."""
  found = report.read_metrics(folder, config)
  if found is None:
    return None
  last = config.steps
  if not last:
    images = len(experiment.read_dataset(config, folder).train)
    last = experiment.num_steps(config, experiment.num_examples(config, images))
  return found if found[0] == last else None


def _of_category(config: ConfigDict, category: str) -> ConfigDict:
  own = config.copy_and_resolve_references()
  own.protocol = MULTI_CLASS
  own.data.categories = (category,)
  if own.checkpoint.get("folder"):
    own.checkpoint.folder = f"{own.checkpoint.folder}/{category}"
  if own.init_from:
    # Of a run with this protocol, which has a workdir for each category.
    same = pathlib.Path(own.init_from).expanduser() / category
    if (same / config_files.RECORDED).is_file() or (
      same / "checkpoints"
    ).is_dir():
      own.init_from = str(same)
  if own.data.layout == "demo" and not own.data.root:
    raise ValueError(
      "The demo data set is written to the workdir, but with this protocol "
      "each category has a workdir of its own. Set --config.data.root=FOLDER, "
      "the folder to write it to."
    )
  return own
