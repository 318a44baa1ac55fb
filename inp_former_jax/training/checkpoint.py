"""Saves and restores checkpoints, by orbax.

A checkpoint holds the trainable part, the optimizer's state, the step, the
position of the data iterator, the config, and the encoder's name and sha256.
The frozen encoder itself is not stored.
"""

import os
import pathlib
import re
import shutil
import tempfile
from collections.abc import Mapping
from typing import Any

import orbax.checkpoint as ocp

from inp_former_jax.training.identity import (
  CheckpointError,
  flatten,
  require_inp_former,
  require_same_parameters,
  require_same_run,
)

# What mounts a bucket as a folder; rclone mounts most of them.
_MOUNTS = {"gs": "gcsfuse", "s3": "mount-s3"}


def prepare_workdir(workdir: str | os.PathLike, needed: int) -> pathlib.Path:
  """Creates the workdir and makes sure that there is room for its checkpoints.

  Args:
    workdir: Folder for everything that the run writes.
    needed: Number of bytes that must be free.

  Returns:
    The absolute path of the workdir.

  Raises:
    CheckpointError: If the workdir cannot be written, is a bucket, or too
      little space is left.
  """
  _refuse_buckets(workdir)
  path = pathlib.Path(workdir).expanduser().absolute()
  try:
    path.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=path) as probe:
      probe.write(b"probe")
    free = shutil.disk_usage(path).free
  except OSError as error:
    raise CheckpointError(
      f"The workdir {path} cannot be written ({error.strerror}). "
      "Choose another workdir, or fix its permissions."
    ) from error
  if free < needed:
    raise CheckpointError(
      f"The workdir {path} has {free / 1e6:.0f} MB free; the checkpoints and "
      f"results need {needed / 1e6:.0f} MB. Free some space, lower "
      "`keep`, or choose another workdir."
    )
  return path


def _refuse_buckets(workdir: str | os.PathLike) -> None:
  """Refuses addresses such as gs://bucket, which would become folders here."""
  found = re.search(r"(?:^|/)(\w{2,}):/", str(workdir))
  if found:
    raise CheckpointError(
      f"The workdir {workdir} is in a bucket, where logs and results cannot be "
      f"written. Mount the bucket as a folder ({found[1]}: for example with "
      f"{_MOUNTS.get(found[1], 'rclone mount')}), and name that folder."
    )


class Checkpointer:
  """Saves and restores the state of a run.

  Saving is asynchronous and atomic: a checkpoint appears under its step when
  it is complete, so that a process killed while saving leaves the one before.
  As a context manager, it completes the save in progress on exit, even after an
  error.
  """

  def __init__(
    self,
    directory: str | os.PathLike,
    identity: Mapping[str, Any],
    *,
    keep: int = 2,
    cleans_up: bool = False,
  ):
    """Opens a folder of checkpoints, and creates it if necessary.

    Args:
      directory: Folder of the checkpoints.
      identity: Description of what a checkpoint belongs to: the config as a
        nested dict, with the encoder's name and sha256 under "encoder".
      keep: Number of checkpoints to keep; the newest ones are kept.
      cleans_up: Whether to remove what a killed save left behind. Only the run
        that saves may do so, because for any other reader it may be a save in
        progress.
    """
    self.directory = pathlib.Path(directory).absolute()
    self._identity = flatten(identity)
    self._manager = ocp.CheckpointManager(
      self.directory,
      item_names=("trainable", "opt_state", "iterator", "identity"),
      options=ocp.CheckpointManagerOptions(
        max_to_keep=keep, cleanup_tmp_directories=cleans_up
      ),
    )

  @property
  def latest_step(self) -> int | None:
    """Step of the newest complete checkpoint; None if there is none."""
    return self._manager.latest_step()

  def save(
    self,
    step: int,
    trainable: Any,
    opt_state: Any,
    iterator: Mapping[str, Any],
  ) -> None:
    """Waits for the save before this one, then starts to save.

    Args:
      step: Number of steps taken so far.
      trainable: Trainable part of the model, a pytree of arrays.
      opt_state: State of the optimizer, a pytree of arrays.
      iterator: State of the data iterator, fit for JSON.

    Raises:
      CheckpointError: If this save, or the one before it, failed.
    """
    args = ocp.args.Composite(
      trainable=ocp.args.StandardSave(trainable),
      opt_state=ocp.args.StandardSave(opt_state),
      iterator=ocp.args.JsonSave(dict(iterator)),
      identity=ocp.args.JsonSave(self._identity),
    )
    self._guard(lambda: self._manager.save(step, args=args))

  def wait(self) -> None:
    """Waits until all saves are on disk.

    Raises:
      CheckpointError: If one of them failed.
    """
    self._guard(self._manager.wait_until_finished)

  def _guard(self, write) -> None:
    try:
      write()
    except Exception as error:  # orbax lets tensorstore's errors through
      reason = str(error).split("\n")[0][:300]
      step = self.latest_step
      kept = "There is no complete one yet"
      if step is not None:
        kept = f"The newest complete one is of step {step}"
      raise CheckpointError(
        f"A checkpoint could not be written to {self.directory} ({reason}). "
        f"{kept}. Free some space or fix the permissions, then start the same "
        "run again."
      ) from error

  def restore(
    self, trainable: Any, opt_state: Any
  ) -> tuple[Any, Any, dict[str, Any]]:
    """Restores the newest checkpoint in order to continue training.

    Args:
      trainable: Shapes of the trainable part, a pytree of
        `jax.ShapeDtypeStruct` with shardings.
      opt_state: Shapes of the optimizer's state, likewise.

    Returns:
      The trainable part, the optimizer's state and the iterator's state.

    Raises:
      CheckpointError: If there is no checkpoint, it cannot be read, or a field
        that influences training differs from this run.
    """
    restored = self._restore(
      for_training=True,
      trainable=ocp.args.StandardRestore(trainable),
      opt_state=ocp.args.StandardRestore(opt_state),
      iterator=ocp.args.JsonRestore(),
    )
    return restored["trainable"], restored["opt_state"], restored["iterator"]

  def restore_trainable(self, trainable: Any) -> Any:
    """Restores the trainable part of the newest checkpoint alone.

    Args:
      trainable: Shapes of the trainable part, a pytree of
        `jax.ShapeDtypeStruct` with shardings.

    Returns:
      The trainable part, a pytree of arrays.

    Raises:
      CheckpointError: If there is no checkpoint, it cannot be read, or it
        belongs to another model, encoder or preprocessing.
    """
    item = ocp.args.StandardRestore(trainable)
    return self._restore(for_training=False, trainable=item)["trainable"]

  def _restore(self, *, for_training: bool, **items):
    step = self.latest_step
    if step is None:
      raise _no_checkpoint(self.directory)
    self._check_identity(step, for_training)
    try:
      return self._manager.restore(step, args=ocp.args.Composite(**items))
    except Exception as error:  # orbax lets tensorstore's errors through
      reason = str(error).split("\n")[0][:300]
      raise CheckpointError(
        f"The checkpoint {self.directory / str(step)} cannot be read "
        f"({reason}). Remove this folder to resume from the one before it."
      ) from error

  def saved_identity(self, step: int) -> dict[str, Any]:
    """Reads the identity of a checkpoint.

    Args:
      step: Step of the checkpoint, which must exist.

    Returns:
      The value of each field, by dotted name.

    Raises:
      CheckpointError: If it is not a checkpoint of this project.
    """
    try:
      args = ocp.args.Composite(identity=ocp.args.JsonRestore())
      return self._manager.restore(step, args=args)["identity"]
    except Exception as error:
      raise CheckpointError(
        f"{self.directory / str(step)} is not a checkpoint of this project. "
        "Name the workdir of a training run, or of a converted checkpoint."
      ) from error

  def _check_identity(self, step: int, for_training: bool) -> None:
    saved = self.saved_identity(step)
    path = self.directory / str(step)
    require_same_run(path, saved, self._identity, for_training=for_training)

  def __enter__(self) -> "Checkpointer":
    """Returns the checkpointer itself."""
    return self

  def __exit__(self, kind, error, traceback) -> None:
    """Completes the save in progress, even if the run ends with an error.

    Raises:
      CheckpointError: If the save failed and no other error is being raised.
    """
    try:
      self.wait()
    except CheckpointError:
      if error is None:
        raise
    finally:
      self.close()

  def close(self) -> None:
    """Stops the threads that save."""
    self._manager.close()


def require_checkpoints(workdir: pathlib.Path) -> pathlib.Path:
  """Makes sure that a workdir has a folder of checkpoints.

  Args:
    workdir: Folder of a run.

  Returns:
    The folder of its checkpoints.

  Raises:
    CheckpointError: If there is no such folder, or it is in a bucket.
  """
  _refuse_buckets(workdir)
  directory = workdir / "checkpoints"
  if not directory.is_dir():
    raise _no_checkpoint(directory)
  return directory


def read_identity(workdir: pathlib.Path) -> tuple[int, dict[str, Any]]:
  """Reads the identity of the newest checkpoint of a workdir.

  Args:
    workdir: Folder of a run, or of a converted checkpoint.

  Returns:
    The step of the checkpoint, and its identity by dotted names.

  Raises:
    CheckpointError: If there is no checkpoint, or the newest one is not of this
      project.
  """
  directory = require_checkpoints(workdir)
  with Checkpointer(directory, {}) as checkpointer:
    step = checkpointer.latest_step
    if step is None:
      raise _no_checkpoint(directory)
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
  path = workdir / "checkpoints" / str(step)
  require_inp_former(path, saved)
  require_same_parameters(path, saved, flatten(identity))
  # With its own identity, because the size of the images may differ.
  with Checkpointer(path.parent, saved) as checkpointer:
    return step, checkpointer.restore_trainable(trainable)


def _no_checkpoint(directory: pathlib.Path) -> CheckpointError:
  return CheckpointError(
    f"No checkpoint in {directory}. Train a model there first."
  )
