"""Makes what `config.checkpoint` says: when to save, and which is the best."""

import math
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
from ml_collections import ConfigDict

from inp_former_jax.data.records import Dataset
from inp_former_jax.evaluation.results import COLUMNS, SAMPLE_COLUMNS
from inp_former_jax.processes import messages
from inp_former_jax.training.checkpoints import place, workdirs
from inp_former_jax.training.checkpoints.best_checkpoint import BestCheckpoint
from inp_former_jax.training.checkpoints.checkpoint import Checkpointer
from inp_former_jax.training.checkpoints.save_times import SaveTimes
from inp_former_jax.training.identity import CheckpointError


def check(config: ConfigDict, dataset: Dataset) -> None:
  """Checks `config.checkpoint.best` before training.

  Args:
    config: The config of the run.
    dataset: The data set of the run.

  Raises:
    ValueError: If it names no metric that an evaluation of this data set gives,
      or nothing is evaluated during training.
  """
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


def require_room(config: ConfigDict, workdir: pathlib.Path, state: Any) -> None:
  """Makes sure that what a run writes has room in its workdir.

  Args:
    config: The config of the run; `checkpoint` is read.
    workdir: The folder of the run.
    state: Shapes and dtypes of the training state, a pytree.

  Raises:
    CheckpointError: If too little space is left.
  """
  size = sum(
    math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(state)
  )
  copies = 0
  if not config.checkpoint.get("folder"):
    # With the one that is being saved.
    copies = config.checkpoint.keep + bool(config.checkpoint.get("best")) + 1
  workdirs.prepare_workdir(workdir, copies * size + 50_000_000)  # and results


def open_for_run(
  config: ConfigDict,
  workdir: pathlib.Path,
  identity: Mapping[str, Any],
  best: BestCheckpoint | None = None,
) -> Checkpointer:
  """Opens the checkpoints of a run that will save further ones.

  Args:
    config: The config of the run; `checkpoint` is read.
    workdir: The folder of the run.
    identity: Description of the run, as `Checkpointer` takes it.
    best: The values by which the best checkpoint is kept, if it is.

  Raises:
    CheckpointError: If they are to be in a bucket that cannot be written, in a
      folder that holds anything else, or the run has others elsewhere.
  """
  directory = place.of_run(config.checkpoint.get("folder", ""), workdir)
  _require_no_other(directory, workdir)
  if jax.process_index() == 0:
    place.prepare(directory)
  return Checkpointer(
    directory,
    identity,
    keep=config.checkpoint.keep,
    best=best,
    cleans_up=True,
  )


def _require_no_other(directory: place.Place, workdir: pathlib.Path) -> None:
  """Makes sure that a run does not start anew beside its own checkpoints."""
  recorded = place.of_workdir(workdir)
  if recorded != directory and place.has_steps(recorded):
    raise CheckpointError(
      f"The checkpoints of {workdir} are in {recorded}; this run would write "
      f"to {directory}. Set `folder` as it was, or use another workdir, which "
      "can start from the parameters of this one by `init_from`."
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
