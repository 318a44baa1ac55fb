"""Makes what `config.checkpoint` says: when to save, and which is the best."""

import pathlib

from ml_collections import ConfigDict

from inp_former_jax.data.records import Dataset
from inp_former_jax.evaluation.results import COLUMNS, SAMPLE_COLUMNS
from inp_former_jax.processes import messages
from inp_former_jax.training.checkpoints import saved_runs
from inp_former_jax.training.checkpoints.best_checkpoint import BestCheckpoint
from inp_former_jax.training.checkpoints.save_times import SaveTimes


def check(config: ConfigDict, dataset: Dataset) -> None:
  """Checks `config.checkpoint.use` and `best` before training.

  Args:
    config: The config of the run.
    dataset: The data set of the run.

  Raises:
    ValueError: If `use` is unknown; or if `best` names no metric that an
      evaluation of this data set gives, or nothing is evaluated during
      training.
  """
  saved_runs.check_use(config.checkpoint.use)
  best = config.checkpoint.best
  if not best:
    return
  samples = any(record.sample for record in dataset.test)
  known = [*COLUMNS, *(SAMPLE_COLUMNS if samples else ())]
  if best not in known:
    raise ValueError(
      f"config.checkpoint.best is {best!r}; the metrics of this data set are "
      f"{', '.join(known)}."
    )
  if not dataset.test or config.evaluation.every_steps < 1:
    reason = "has no test images"
    if dataset.test:
      reason = "is evaluated only at the end (config.evaluation.every_steps=0)"
    raise ValueError(
      f"config.checkpoint.best is {best!r}, but {dataset.name} {reason}, "
      "so that no checkpoint can be the best. Leave the field empty, or have "
      "the model evaluated during training."
    )


def save_times(config: ConfigDict, start: int, total_steps: int) -> SaveTimes:
  """Returns what tells a run when to save a checkpoint.

  Args:
    config: The config of the run; `checkpoint` and `evaluation.every_steps` are
      read.
    start: The number of steps already taken.
    total_steps: The number of steps of the whole run.
  """
  settings = config.checkpoint
  # Only a saved step can be the best one. And several processes finish an
  # evaluation before they stop, which may be too late to save.
  saves_all = settings.get("best") or messages.several()
  evaluated = config.evaluation.every_steps if saves_all else 0
  return SaveTimes(
    start,
    total_steps,
    every_steps=settings.every_steps,
    every_minutes=settings.every_minutes,
    also_every=evaluated,
  )


def best_checkpoint(
  config: ConfigDict, workdir: pathlib.Path
) -> BestCheckpoint | None:
  """Returns the values by which the best checkpoint is kept; None if none is.

  Args:
    config: The config of the run; `checkpoint.best` is read.
    workdir: The folder of the run.
  """
  best = config.checkpoint.best
  return BestCheckpoint(workdir, best) if best else None
