"""Checkpoints: train state, data iterator and identity, by orbax.

A checkpoint holds the trainable part, the optimizer's state, the step, the
position of the data iterator, the config and the encoder's name and sha256;
the frozen encoder itself is not stored.
"""

import os
import pathlib
import shutil
import tempfile
from collections.abc import Mapping
from typing import Any

import orbax.checkpoint as ocp

from inp_former_jax.training.identity import (
  CheckpointError,
  flatten,
  require_same_run,
)


def prepare_workdir(workdir: str | os.PathLike, needed: int) -> pathlib.Path:
  """Creates the workdir and makes sure that a checkpoint fits.

  Args:
    workdir: Folder for everything the run writes.
    needed: Bytes that must be free.

  Returns:
    The absolute path.

  Raises:
    CheckpointError: It cannot be written, or too little space is left.
  """
  path = pathlib.Path(workdir).expanduser().absolute()
  try:
    path.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=path) as probe:
      probe.write(b"probe")
    free = shutil.disk_usage(path).free
  except OSError as error:
    raise CheckpointError(
      f"The workdir {path} cannot be written ({error.strerror}). "
      "Choose another one with --workdir, or mend its permissions."
    ) from error
  if free < needed:
    raise CheckpointError(
      f"The workdir {path} has {free / 1e6:.0f} MB free; the checkpoints and "
      f"results need {needed / 1e6:.0f} MB. Free some space, lower "
      "config.checkpoint.keep, or choose another --workdir."
    )
  return path


class Checkpointer:
  """Saves and restores the state of a run.

  Saving is asynchronous and atomic: a checkpoint appears under its step when
  it is complete, so that a process killed while saving keeps the one before.
  As a context manager it completes the save under way at the end, also after
  an error.
  """

  def __init__(
    self,
    directory: str | os.PathLike,
    identity: Mapping[str, Any],
    *,
    keep: int = 2,
    cleans_up: bool = False,
  ):
    """Opens (or creates) a folder of checkpoints.

    Args:
      directory: The folder.
      identity: What a checkpoint belongs to: the config as a nested dict,
        with the encoder's name and sha256 under "encoder".
      keep: The number of checkpoints to keep; the newest are kept.
      cleans_up: Whether the remains of a save that was killed are removed. Only
        a run that saves may do so: another one may be saving right now.
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
    """Step of the newest complete checkpoint; None where there is none."""
    return self._manager.latest_step()

  def save(
    self,
    step: int,
    trainable: Any,
    opt_state: Any,
    iterator: Mapping[str, Any],
  ) -> None:
    """Starts to save; waits for the save before it.

    Args:
      step: Number of steps taken.
      trainable: Pytree of arrays.
      opt_state: Pytree of arrays.
      iterator: State of the data iterator, fit for JSON.

    Raises:
      CheckpointError: This save, or the one before it, failed.
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
      CheckpointError: One of them failed.
    """
    self._guard(self._manager.wait_until_finished)

  def _guard(self, write) -> None:
    try:
      write()
    except Exception as error:  # orbax lets tensorstore's errors through
      reason = str(error).split("\n")[0][:300]
      raise CheckpointError(
        f"A checkpoint could not be written to {self.directory} ({reason}). "
        f"The newest complete one is of step {self.latest_step}; make room or "
        "mend the permissions, then start the same command again."
      ) from error

  def restore(
    self, trainable: Any, opt_state: Any
  ) -> tuple[Any, Any, dict[str, Any]]:
    """Restores the newest checkpoint, to train on.

    Args:
      trainable: Pytree of `jax.ShapeDtypeStruct` with shardings.
      opt_state: The same for the optimizer's state.

    Returns:
      The trainable part, the optimizer's state and the iterator's state.

    Raises:
      CheckpointError: There is none, it cannot be read, or anything that
        influences training differs from this run.
    """
    restored = self._restore(
      for_training=True,
      trainable=ocp.args.StandardRestore(trainable),
      opt_state=ocp.args.StandardRestore(opt_state),
      iterator=ocp.args.JsonRestore(),
    )
    return restored["trainable"], restored["opt_state"], restored["iterator"]

  def restore_trainable(self, trainable: Any) -> Any:
    """Restores the trainable part alone, to evaluate.

    Args:
      trainable: Pytree of `jax.ShapeDtypeStruct` with shardings.

    Returns:
      The trainable part.

    Raises:
      CheckpointError: There is none, it cannot be read, or it is of another
        model, encoder or preprocessing.
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
        f"({reason}). Remove this folder to go on from the one before it."
      ) from error

  def saved_identity(self, step: int) -> dict[str, Any]:
    """What the checkpoint of a step belongs to, by dotted names.

    Args:
      step: Of a checkpoint that exists.

    Returns:
      Field -> value.

    Raises:
      CheckpointError: It is not a checkpoint of this project.
    """
    try:
      args = ocp.args.Composite(identity=ocp.args.JsonRestore())
      return self._manager.restore(step, args=args)["identity"]
    except Exception as error:
      raise CheckpointError(
        f"{self.directory / str(step)} is not a checkpoint of this project."
      ) from error

  def _check_identity(self, step: int, for_training: bool) -> None:
    saved = self.saved_identity(step)
    path = self.directory / str(step)
    require_same_run(path, saved, self._identity, for_training=for_training)

  def __enter__(self) -> "Checkpointer":
    """Nothing to start."""
    return self

  def __exit__(self, kind, error, traceback) -> None:
    """Completes the save under way, also when the run ends by an error.

    Raises:
      CheckpointError: It failed, and no other error is on its way.
    """
    try:
      self.wait()
    except CheckpointError:
      if error is None:
        raise
    finally:
      self.close()

  def close(self) -> None:
    """Frees the threads."""
    self._manager.close()


def require_checkpoints(workdir: pathlib.Path) -> pathlib.Path:
  """Makes sure that a workdir has been trained in.

  Args:
    workdir: Folder of a run.

  Returns:
    Its folder of checkpoints.

  Raises:
    CheckpointError: If there is none.
  """
  directory = workdir / "checkpoints"
  if not directory.is_dir():
    raise _no_checkpoint(directory)
  return directory


def read_identity(workdir: pathlib.Path) -> tuple[int, dict[str, Any]]:
  """What the newest checkpoint of a workdir belongs to.

  Args:
    workdir: Folder of a run, or of a converted checkpoint.

  Returns:
    Its step, and the identity by dotted names.

  Raises:
    CheckpointError: There is no checkpoint, or none of this project.
  """
  directory = require_checkpoints(workdir)
  with Checkpointer(directory, {}) as checkpointer:
    step = checkpointer.latest_step
    if step is None:
      raise _no_checkpoint(directory)
    return step, checkpointer.saved_identity(step)


def _no_checkpoint(directory: pathlib.Path) -> CheckpointError:
  return CheckpointError(
    f"No checkpoint in {directory}. Train first: the same command with "
    "--mode=train."
  )
