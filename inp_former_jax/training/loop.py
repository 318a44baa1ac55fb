"""The training loop that all trainers share."""

import dataclasses
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import jax
from jax.sharding import Mesh

from inp_former_jax import sharding
from inp_former_jax.processes import agreement
from inp_former_jax.processes.preemption import Interrupted, Preemption
from inp_former_jax.training.checkpoints import finiteness
from inp_former_jax.training.checkpoints.checkpoint import (
  Checkpointer,
  CheckpointError,
)
from inp_former_jax.training.progress import TrainingLog, announce

State = tuple[Any, Any]  # trainable part, optimizer's state
Metrics = Mapping[str, jax.Array]


class ResumableBatches(Protocol):
  """An endless iterator over batches whose position can be saved."""

  def __next__(self) -> Mapping[str, Any]:
    """Returns this process's rows of the next batch, by name."""
    ...

  def get_state(self) -> dict[str, Any]:
    """Returns the current position, fit for JSON."""
    ...

  def set_state(self, state: dict[str, Any]) -> None:
    """Moves the iterator to a position.

    Args:
      state: The position, as `get_state` returned it.
    """
    ...


@dataclasses.dataclass(frozen=True)
class Hooks:
  """Functions that the loop calls between the steps, in this order.

  Attributes:
    log: Function called after every step with the step's number and its
      metrics, which are still on the device.
    checkpoint: Function called when a save is due and after the last step, with
      the number of steps taken and the state.
    evaluate: Function called every `evaluate_every` steps with the same
      arguments, but not after the last step, whose state the trainer evaluates
      itself. Its result is ignored.
    was_evaluated: Function that is asked by a resumed run, on all processes,
      whether the evaluation of its first state was made before it stopped. If
      one was due and was not, it is made up before the next step.
    is_save_due: Function that is asked after every step whether to save a
      checkpoint, see `save_times.SaveTimes`.
    evaluate_every: Number of steps between evaluations; 0 for none.
  """

  log: Callable[[int, Metrics], None]
  checkpoint: Callable[[int, State], None]
  evaluate: Callable[[int, State], object]
  was_evaluated: Callable[[int], bool]
  is_save_due: Callable[[int], bool]
  evaluate_every: int


def start_or_resume(
  checkpointer: Checkpointer,
  batches: ResumableBatches,
  abstract: State,
  initialise: Callable[[], State],
  total_steps: int,
) -> tuple[int, State]:
  """Restores the newest sound checkpoint, or initialises the state.

  Args:
    checkpointer: The run's checkpoints.
    batches: The training data, which is moved to the checkpoint's position.
    abstract: Shapes, dtypes and shardings of the state.
    initialise: Function that returns the initial state; it is called only if
      there is no checkpoint.
    total_steps: Number of steps of the whole run.

  Returns:
    The number of steps already taken, which is 0 for a converted checkpoint,
    and the state.

  Raises:
    CheckpointError: If the checkpoint belongs to another run, cannot be read,
      has more steps than the whole run, or a position in the training data
      that is not that of its step; or if all are damaged.
    DisagreementError: If the processes have different newest checkpoints, as
      in workdirs that are not shared.
  """
  agreement.require_same({"newest checkpoint": checkpointer.latest_step})
  step = checkpointer.newest_sound_step()
  if step is None:
    return 0, initialise()
  if step > total_steps:
    raise CheckpointError(
      f"{checkpointer.directory} holds step {step}, but the run has only "
      f"{total_steps} steps. Set `steps` or `epochs` as before."
    )
  trainable, opt_state, position = checkpointer.restore(*abstract, step)
  _require_position(position, step, checkpointer.directory / str(step))
  batches.set_state(position)
  return step, (trainable, opt_state)


def _require_position(
  position: Mapping[str, Any], step: int, path: str | os.PathLike
) -> None:
  """Raises CheckpointError unless every step has had a batch, and only one."""
  found = position.get("next_batch")
  if found != step:
    raise CheckpointError(
      f"The checkpoint {path} is of step {step}, but its position in the "
      f"training data is batch {found}; expected {step}. No run has written "
      "them together: remove this folder to resume from the one before it."
    )


def describe_start(start: int, total_steps: int) -> str:
  """Describes for the user where a run starts.

  Args:
    start: The number of steps already taken.
    total_steps: The number of steps of the whole run.
  """
  if start == total_steps:
    return f"Finished before: step {start} of {total_steps}."
  if start:
    text = f"Resumed at step {start} of {total_steps}."
  else:
    text = f"Training for {total_steps} steps."
  return f"{text} The first step is compiled, which can take minutes ..."


def saving(
  checkpointer: Checkpointer,
  log: TrainingLog,
  batches: ResumableBatches,
  preemption: Preemption | None = None,
) -> Callable[[int, State], None]:
  """Builds the usual hook that saves checkpoints.

  Args:
    checkpointer: The run's checkpoints.
    log: The run's log. It is flushed first, and then raises FloatingPointError
      if the loss is not finite, because such a state must not be saved.
    batches: The training data, whose position is saved too.
    preemption: If it stops the run, the last save is waited for.

  Returns:
    A function for `Hooks.checkpoint`. It raises FloatingPointError if the state
    itself is not finite, as after an update that the next loss would show.
  """

  def save(step: int, state: State) -> None:
    log.flush()
    finiteness.require_finite(step, *state)
    trainable, opt_state = state
    checkpointer.save(step, trainable, opt_state, batches.get_state())
    if preemption and preemption.stopping:
      checkpointer.wait()

  return save


def run(
  train_step: Callable[[State, Mapping[str, jax.Array]], tuple[State, Metrics]],
  state: State,
  batches: Iterator[Mapping[str, Any]] | ResumableBatches,
  hooks: Hooks,
  mesh: Mesh,
  *,
  start: int,
  total_steps: int,
  preemption: Preemption | None = None,
) -> State:
  """Runs the training loop.

  Args:
    train_step: Compiled function (state, batch) -> (state, metrics), which may
      donate the state.
    state: The state after `start` steps.
    batches: Iterator over this process's rows of each batch, from step `start`
      on.
    hooks: The functions to call between the steps.
    mesh: The devices over which a batch is spread.
    start: Number of steps already taken.
    total_steps: Number of steps of the whole run.
    preemption: What is asked after every step whether to save and stop.

  Returns:
    The state after the last step.

  Raises:
    Stopped: If `preemption` asked for it; the state is saved.
  """
  preemption = preemption or Preemption()
  batch_sharding = sharding.batch_sharding(mesh)
  if _lacks_evaluation(start, total_steps, hooks):
    announce(f"Evaluating step {start}, which was not evaluated before ...")
    hooks.evaluate(start, state)
  for step in range(start + 1, total_steps + 1):
    batch = {
      name: sharding.to_global(rows, batch_sharding)
      for name, rows in next(batches).items()
    }
    state, metrics = train_step(state, batch)
    is_last = step == total_steps
    hooks.log(step, metrics)
    stops = preemption.reached(step) and not is_last
    # All processes ask, as they may have to agree.
    saves = hooks.is_save_due(step) or is_last or stops
    if saves:
      hooks.checkpoint(step, state)
    if not is_last and not stops and _is_due(step, hooks.evaluate_every):
      try:
        with preemption.interrupting():
          hooks.evaluate(step, state)
      except Interrupted:
        stops = True
        if not saves:
          hooks.checkpoint(step, state)
    if stops:
      raise preemption.stopped(step, total_steps)
  return state


def _lacks_evaluation(start: int, total_steps: int, hooks: Hooks) -> bool:
  """Whether a run was stopped or killed before an evaluation of its state."""
  return (
    0 < start < total_steps
    and _is_due(start, hooks.evaluate_every)
    and not hooks.was_evaluated(start)
  )


def _is_due(step: int, every: int) -> bool:
  return every > 0 and step % every == 0
