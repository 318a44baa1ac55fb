"""Reads what a run has saved: the identity and parameters of a checkpoint."""

import os
import pathlib
from collections.abc import Mapping
from typing import Any

from inp_former_jax.training.checkpoints import (
  best_checkpoint,
  place,
  sound_checkpoint,
)
from inp_former_jax.training.checkpoints.checkpoint import (
  Checkpointer,
  no_checkpoint,
)
from inp_former_jax.training.checkpoints.workdirs import refuse_buckets
from inp_former_jax.training.identity import (
  flatten,
  require_inp_former,
  require_same_parameters,
)

NEWEST, BEST = "newest", "best"
USES = (NEWEST, BEST)


def check_use(use: str) -> None:
  """Makes sure that `use` says which checkpoint to take.

  Args:
    use: One of USES.

  Raises:
    ValueError: If it is not.
  """
  if use not in USES:
    raise ValueError(f"`use` is {use!r}; it can be {' or '.join(USES)}.")


def require_checkpoints(workdir: pathlib.Path) -> place.Place:
  """Makes sure that the run of a workdir has a folder of checkpoints.

  Args:
    workdir: Folder of a run.

  Returns:
    The folder of its checkpoints, or its place in a bucket.

  Raises:
    CheckpointError: If there is no such folder, it cannot be read, or the
      workdir itself is in a bucket.
  """
  refuse_buckets(workdir)
  directory = place.of_workdir(workdir)
  with place.reported(directory):
    found = directory.is_dir()
  if not found:
    raise no_checkpoint(directory)
  return directory


def read_identity(
  workdir: pathlib.Path, use: str = NEWEST
) -> tuple[int, dict[str, Any]]:
  """Reads the identity of a checkpoint of a workdir.

  Args:
    workdir: Folder of a run, or of a converted checkpoint.
    use: Which checkpoint, one of USES. If it is damaged, the one before it is
      used, or the next best, with a warning.

  Returns:
    The step of the checkpoint, and its identity by dotted names.

  Raises:
    CheckpointError: If there is no checkpoint, all are damaged, none has been
      evaluated to be the best, or it is not of this project.
    ValueError: If `use` is not one of USES.
  """
  check_use(use)
  directory = require_checkpoints(workdir)
  with Checkpointer(directory, {}) as checkpointer:
    steps = checkpointer.steps[::-1]
    if not steps:
      raise no_checkpoint(directory)
    if use == BEST:
      steps = best_checkpoint.ranked_steps(workdir, steps)
    step = sound_checkpoint.choose(directory, steps)
    return step, checkpointer.saved_identity(step)


def restore_initial(
  workdir: str | os.PathLike, trainable: Any, identity: Mapping[str, Any]
) -> tuple[int, Any]:
  """Restores the parameters that another run ended with, to start from them.

  Args:
    workdir: Folder of the other run, or of a converted checkpoint.
    trainable: Shapes of the trainable part, a pytree of
      `jax.ShapeDtypeStruct` with the shardings of the run that starts.
    identity: Description of the run that starts, as a `Checkpointer` takes it.

  Returns:
    The step of the newest checkpoint of the folder, and its trainable part.

  Raises:
    CheckpointError: If there is no checkpoint, it cannot be read, or it
      belongs to another encoder or a model of another structure.
  """
  workdir = pathlib.Path(workdir).expanduser().absolute()
  step, saved = read_identity(workdir)
  path = place.of_workdir(workdir) / str(step)
  require_inp_former(path, saved)
  require_same_parameters(path, saved, flatten(identity))
  # With its own identity, because the size of the images may differ.
  with Checkpointer(path.parent, saved) as checkpointer:
    return step, checkpointer.restore_trainable(trainable, step)
