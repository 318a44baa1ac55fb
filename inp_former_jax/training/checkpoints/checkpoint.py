"""Saves and restores checkpoints, by orbax.

A checkpoint holds the trainable part, the optimizer's state, the step, the
position of the data iterator, the config, and the encoder's name and sha256.
The frozen encoder itself is not stored.
"""

from collections.abc import Mapping
from typing import Any

import orbax.checkpoint as ocp

from inp_former_jax.processes import messages
from inp_former_jax.training.checkpoints import (
  manifest,
  place,
  sound_checkpoint,
)
from inp_former_jax.training.checkpoints.best_checkpoint import BestCheckpoint
from inp_former_jax.training.identity import (
  CheckpointError,
  flatten,
  require_same_run,
)


class Checkpointer:
  """Saves and restores the state of a run.

  Saving is asynchronous and atomic: a checkpoint appears under its step when
  it is complete, so that a process killed while saving leaves the one before.
  Its files have checksums, which are compared before it is restored; if one is
  damaged, the checkpoint before it is restored instead, with a warning.
  As a context manager, it completes the save in progress on exit, even after an
  error.
  """

  def __init__(
    self,
    directory: str | place.Place,
    identity: Mapping[str, Any],
    *,
    keep: int = 2,
    best: BestCheckpoint | None = None,
    cleans_up: bool = False,
  ):
    """Opens a folder of checkpoints, and creates it if necessary.

    Args:
      directory: Folder of the checkpoints, or its place in a bucket.
      identity: Description of what a checkpoint belongs to: the config as a
        nested dict, with the encoder's name and sha256 under "encoder".
      keep: Number of checkpoints to keep; the newest ones are kept.
      best: Values by which the best checkpoint is kept beside the newest ones.
      cleans_up: Whether to remove what a killed save left behind, and to move
        damaged checkpoints aside. Only the run that saves may do so, because
        for any other reader it may be a save in progress.

    Raises:
      CheckpointError: If they are in a bucket that cannot be used.
    """
    self.directory: place.Place = place.absolute(directory)
    self._identity = flatten(identity)
    self._cleans_up = cleans_up
    self._saving = -1  # step whose save is in progress
    managers = ocp.checkpoint_managers
    kept: list[Any] = [managers.LatestN(keep), *([best] if best else [])]
    options = ocp.CheckpointManagerOptions(
      preservation_policy=managers.AnyPreservationPolicy(kept),
      cleanup_tmp_directories=cleans_up,
      # Called by the first process, when all have written their part.
      async_options=ocp.AsyncOptions(
        post_finalization_callback=self._write_manifest
      ),
    )
    with place.reported(self.directory):
      self._manager = ocp.CheckpointManager(
        place.for_orbax(self.directory),
        item_names=("trainable", "opt_state", "iterator", "identity"),
        options=options,
      )

  @property
  def latest_step(self) -> int | None:
    """Step of the newest complete checkpoint; None if there is none."""
    return self._manager.latest_step()

  @property
  def steps(self) -> list[int]:
    """Steps of all complete checkpoints, in order."""
    return sorted(self._manager.all_steps())

  def newest_sound_step(self) -> int | None:
    """Returns the step of the newest checkpoint that is not damaged.

    A run that saves moves newer ones, which are damaged, aside: it will save
    those steps again.

    Returns:
      The step; None if there is no checkpoint.

    Raises:
      CheckpointError: If all checkpoints are damaged.
    """
    steps = self.steps[::-1]
    if not steps:
      return None
    step = sound_checkpoint.choose(self.directory, steps)
    damaged = steps[: steps.index(step)]
    if damaged and self._cleans_up:
      sound_checkpoint.move_aside(self.directory, damaged)
      self._manager.reload()
    return step

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
    self.wait()
    self._saving = step
    self._guard(lambda: self._manager.save(step, args=args))

  def _write_manifest(self) -> None:
    """Adds the checksums to a checkpoint that has not got its name yet."""
    name = str(self._saving)
    # Where a folder cannot be renamed in one go, orbax gives it its name at
    # once and marks its end by a file.
    unnamed = [p for p in self.directory.glob(f"{name}.*") if p.is_dir()]
    for folder in unnamed or [self.directory / name]:
      manifest.write_manifest(folder)

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
    self, trainable: Any, opt_state: Any, step: int | None = None
  ) -> tuple[Any, Any, dict[str, Any]]:
    """Restores the newest sound checkpoint in order to continue training.

    Args:
      trainable: Shapes of the trainable part, a pytree of
        `jax.ShapeDtypeStruct` with shardings.
      opt_state: Shapes of the optimizer's state, likewise.
      step: Step of the checkpoint; by default that of the newest sound one.

    Returns:
      The trainable part, the optimizer's state and the iterator's state.

    Raises:
      CheckpointError: If there is no checkpoint, it cannot be read, or a field
        that influences training differs from this run.
    """
    restored = self._restore(
      step,
      for_training=True,
      trainable=ocp.args.StandardRestore(trainable),
      opt_state=ocp.args.StandardRestore(opt_state),
      iterator=ocp.args.JsonRestore(),
    )
    return restored["trainable"], restored["opt_state"], restored["iterator"]

  def restore_trainable(self, trainable: Any, step: int | None = None) -> Any:
    """Restores the trainable part of a checkpoint alone.

    Args:
      trainable: Shapes of the trainable part, a pytree of
        `jax.ShapeDtypeStruct` with shardings.
      step: Step of the checkpoint; by default that of the newest sound one.

    Returns:
      The trainable part, a pytree of arrays.

    Raises:
      CheckpointError: If there is no checkpoint, it is damaged, or it belongs
        to another model, encoder or preprocessing.
    """
    item = ocp.args.StandardRestore(trainable)
    restored = self._restore(step, for_training=False, trainable=item)
    return restored["trainable"]

  def _restore(self, step: int | None = None, *, for_training: bool, **items):
    if step is None:
      step = self.newest_sound_step()
    else:
      sound_checkpoint.choose(self.directory, [step])
    if step is None:
      raise no_checkpoint(self.directory)
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

    One of several processes does not wait after an error: the others might not
    come.

    Raises:
      CheckpointError: If the save failed and no other error is being raised.
    """
    if isinstance(error, Exception) and messages.several():
      return
    try:
      self.wait()
    except CheckpointError:
      # A run that was told to stop says that its last step is saved.
      if error is None or isinstance(error, SystemExit):
        raise
    finally:
      self.close()

  def close(self) -> None:
    """Stops the threads that save."""
    self._manager.close()


def no_checkpoint(directory: place.Place) -> CheckpointError:
  """Returns the error of a folder without checkpoints.

  Args:
    directory: The folder.
  """
  reason = ""
  if place.in_bucket(directory):
    reason = ", or the credentials do not allow reading it"
  return CheckpointError(
    f"No checkpoint in {directory}{reason}. Train a model there first."
  )
