"""The training loop, the same for every trainer."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import jax
from jax.sharding import Mesh

from inp_former_jax import sharding
from inp_former_jax.training.checkpoint import Checkpointer, CheckpointError
from inp_former_jax.training.progress import TrainingLog

State = tuple[Any, Any]  # trainable part, optimizer's state
Metrics = Mapping[str, jax.Array]


class ResumableBatches(Protocol):
  """An endless iterator over batches whose position can be saved."""

  def __next__(self) -> Mapping[str, Any]:
    """Gives this process's rows of the next batch."""
    ...

  def get_state(self) -> dict[str, Any]:
    """The position, fit for JSON."""
    ...

  def set_state(self, state: dict[str, Any]) -> None:
    """Goes to a position that `get_state` gave."""
    ...


@dataclasses.dataclass(frozen=True)
class Hooks:
  """What happens between the steps, in this order.

  Attributes:
    log: Called after every step with its number and its metrics, which are
      still on the device.
    checkpoint: Called every `checkpoint_every` steps and after the last one,
      with the number of steps taken and the state.
    evaluate: Called every `evaluate_every` steps, in the same way; not after
      the last one, which the trainer evaluates itself. What it returns is
      not used.
    checkpoint_every: Steps between checkpoints; 0 keeps only the last one.
    evaluate_every: Steps between evaluations; 0 for none.
  """

  log: Callable[[int, Metrics], None]
  checkpoint: Callable[[int, State], None]
  evaluate: Callable[[int, State], object]
  checkpoint_every: int
  evaluate_every: int


def start_or_resume(
  checkpointer: Checkpointer,
  batches: ResumableBatches,
  abstract: State,
  initialise: Callable[[], State],
  total_steps: int,
) -> tuple[int, State]:
  """Finds out where to start: at the newest checkpoint, or at the beginning.

  Args:
    checkpointer: The run's checkpoints.
    batches: The training data, moved to the checkpoint's position.
    abstract: Shapes, dtypes and shardings of the state.
    initialise: Gives the initial state; not called where there is a
      checkpoint.
    total_steps: Steps of the whole run.

  Returns:
    The number of steps taken, 0 for a converted checkpoint, and the state.

  Raises:
    CheckpointError: If the checkpoint is of another run, cannot be read, or
      has had more steps than the run is to have.
  """
  step = checkpointer.latest_step
  if step is None:
    return 0, initialise()
  if step > total_steps:
    raise CheckpointError(
      f"{checkpointer.directory} holds step {step} and the run has "
      f"{total_steps} steps only. Set config.steps or config.epochs as before."
    )
  trainable, opt_state, position = checkpointer.restore(*abstract)
  batches.set_state(position)
  return step, (trainable, opt_state)


def describe_start(start: int, total_steps: int) -> str:
  """Tells the user where a run starts.

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
  checkpointer: Checkpointer, log: TrainingLog, batches: ResumableBatches
) -> Callable[[int, State], None]:
  """The usual hook for checkpoints.

  Args:
    checkpointer: The run's checkpoints.
    log: The run's log, which is written first: it raises FloatingPointError at
      a loss that is not finite, and such a state must not be saved.
    batches: The training data, whose position is saved too.

  Returns:
    A function for `Hooks.checkpoint`.
  """

  def save(step: int, state: State) -> None:
    log.flush()
    trainable, opt_state = state
    checkpointer.save(step, trainable, opt_state, batches.get_state())

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
) -> State:
  """Trains.

  Args:
    train_step: Compiled function (state, batch) -> (state, metrics) that may
      donate the state.
    state: The state after `start` steps.
    batches: Gives this process's rows of each batch, from that step on.
    hooks: What happens between the steps.
    mesh: A batch is spread over all its devices.
    start: Number of steps already taken.
    total_steps: Number of steps of the whole run.

  Returns:
    The state after all steps.
  """
  batch_sharding = sharding.batch_sharding(mesh)
  for step in range(start + 1, total_steps + 1):
    batch = {
      name: sharding.to_global(rows, batch_sharding)
      for name, rows in next(batches).items()
    }
    state, metrics = train_step(state, batch)
    is_last = step == total_steps
    hooks.log(step, metrics)
    if is_last or _is_due(step, hooks.checkpoint_every):
      hooks.checkpoint(step, state)
    if not is_last and _is_due(step, hooks.evaluate_every):
      hooks.evaluate(step, state)
  return state


def _is_due(step: int, every: int) -> bool:
  return every > 0 and step % every == 0
