"""The loop's order of steps and hooks, and where a run starts."""

import signal

import jax
import numpy as np
import pytest

from inp_former_jax import sharding
from inp_former_jax.processes.preemption import Preemption, Stopped
from inp_former_jax.training import loop
from inp_former_jax.training.checkpoints.checkpoint import (
  Checkpointer,
  CheckpointError,
)


class Batches:
  """Batch k is full of k."""

  def __init__(self):
    self.next_batch = 0

  def __next__(self):
    self.next_batch += 1
    return {"image": np.full(8, self.next_batch - 1, np.float32)}

  def get_state(self):
    return {"next_batch": self.next_batch}

  def set_state(self, state):
    self.next_batch = state["next_batch"]


@jax.jit
def add_batch(state, batch):
  trainable, opt_state = state
  total = trainable["total"] + batch["image"].sum()
  state = {"total": total}, {"count": opt_state["count"] + 1}
  return state, {"loss": total}


def zeros():
  return {"total": np.zeros(1, "f4")}, {"count": np.zeros(1, "f4")}


def shapes():
  device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  return jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device), zeros()
  )


class Stop(Preemption):
  """Asks for a stop at a step, as a signal does."""

  def __init__(self, step):
    super().__init__()
    self._step = step

  def reached(self, step):
    self._signal = signal.SIGTERM * (step >= self._step)
    return super().reached(step)


def run(
  events,
  *,
  total_steps,
  batches,
  start=0,
  state=None,
  preemption=None,
  evaluate=None,
  was_evaluated=None,
  **every,
):
  hooks = loop.Hooks(
    log=lambda step, metrics: events.append(("log", step)),
    checkpoint=lambda step, state: events.append(("checkpoint", step)),
    evaluate=evaluate
    or (lambda step, state: events.append(("evaluate", step))),
    was_evaluated=was_evaluated or (lambda step: pytest.fail("was asked")),
    is_save_due=lambda step: step % every.get("checkpoint_every", 99) == 0,
    evaluate_every=every.get("evaluate_every", 0),
  )
  return loop.run(
    add_batch,
    state or zeros(),
    batches,
    hooks,
    sharding.make_mesh(),
    start=start,
    total_steps=total_steps,
    preemption=preemption,
  )


def test_hooks_come_when_they_are_due_and_in_their_order():
  events = []
  run(
    events,
    total_steps=5,
    batches=Batches(),
    checkpoint_every=2,
    evaluate_every=2,
  )
  assert events == [
    ("log", 1),
    *[("log", 2), ("checkpoint", 2), ("evaluate", 2)],
    ("log", 3),
    *[("log", 4), ("checkpoint", 4), ("evaluate", 4)],
    *[("log", 5), ("checkpoint", 5)],
  ]


def test_after_the_last_step_it_saves_and_does_not_evaluate():
  events = []
  run(events, total_steps=2, batches=Batches(), evaluate_every=1)
  assert events[-2:] == [("log", 2), ("checkpoint", 2)]
  assert ("evaluate", 1) in events and ("checkpoint", 1) not in events


def test_every_step_gets_the_next_batch():
  trainable, opt_state = run([], total_steps=4, batches=Batches())
  assert trainable["total"][0] == 8 * (0 + 1 + 2 + 3)
  assert opt_state["count"][0] == 4


def test_a_finished_run_takes_no_step():
  events, batches = [], Batches()
  run(events, total_steps=3, batches=batches, start=3)
  assert events == [] and batches.next_batch == 0


@pytest.mark.parametrize("evaluated", [False, True])
def test_an_evaluation_that_a_stop_prevented_precedes_the_next_step(evaluated):
  events, state = [], zeros()
  asked = []

  def was_evaluated(step):
    asked.append(step)
    return evaluated

  run(
    events,
    total_steps=5,
    batches=Batches(),
    start=2,
    state=state,
    was_evaluated=was_evaluated,
    evaluate=lambda step, now: events.append(("evaluate", step, now is state)),
    evaluate_every=2,
  )
  made_up = [] if evaluated else [("evaluate", 2, True)]
  assert events == [
    *made_up,
    ("log", 3),
    *[("log", 4), ("evaluate", 4, False)],
    *[("log", 5), ("checkpoint", 5)],
  ]
  assert asked == [2]


@pytest.mark.parametrize(
  "start, every",
  [
    (0, 2),  # a new run
    (3, 2),  # no evaluation was due
    (4, 2),  # the trainer evaluates the last state itself
    (2, 0),  # nothing is evaluated
  ],
)
def test_no_other_start_is_evaluated(start, every):
  events = []
  run(
    events, total_steps=4, batches=Batches(), start=start, evaluate_every=every
  )
  assert ("evaluate", start) not in events


@pytest.mark.parametrize("every", [99, 3])  # no checkpoint is due, or one is
def test_a_stop_saves_once_and_does_not_evaluate(every):
  events = []
  with pytest.raises(Stopped, match="143") as error:
    run(
      events,
      total_steps=5,
      batches=Batches(),
      preemption=Stop(3),
      checkpoint_every=every,
      evaluate_every=3,
    )
  assert events[-2:] == [("log", 3), ("checkpoint", 3)]
  assert "Stopped by SIGTERM at step 3 of 5" in error.value.line


def test_a_stop_at_the_last_step_is_left_to_the_trainer():
  events = []
  run(events, total_steps=3, batches=Batches(), preemption=Stop(3))
  assert events[-2:] == [("log", 3), ("checkpoint", 3)]


def test_a_stop_during_an_evaluation_saves_its_step():
  events, preemption = [], Preemption()

  def evaluate(step, state):
    preemption._signal = signal.SIGINT
    with preemption.interrupting():
      pytest.fail("evaluated")

  with pytest.raises(Stopped) as error:
    run(
      events,
      total_steps=5,
      batches=Batches(),
      preemption=preemption,
      evaluate=evaluate,
      evaluate_every=2,
    )
  assert events[-2:] == [("log", 2), ("checkpoint", 2)]
  assert error.value.code == 130


def test_it_resumes_from_the_newest_checkpoint_and_its_batch(tmp_path):
  abstract = shapes()
  started = []

  def initialise():
    started.append(True)
    return zeros()

  with Checkpointer(tmp_path, {}) as checkpointer:
    batches = Batches()
    start, state = loop.start_or_resume(
      checkpointer, batches, abstract, initialise, 6
    )
    assert start == 0 and started == [True]
    state = run([], total_steps=3, batches=batches, state=state)
    checkpointer.save(3, *state, batches.get_state())
    checkpointer.wait()
    batches = Batches()
    start, state = loop.start_or_resume(
      checkpointer, batches, abstract, initialise, 6
    )
    assert (start, batches.next_batch) == (3, 3)
    assert started == [True]  # nothing is initialised in vain
    state = run([], total_steps=6, batches=batches, start=3, state=state)
    whole = run([], total_steps=6, batches=Batches())
    assert jax.tree.all(jax.tree.map(np.array_equal, state, whole))
    with pytest.raises(CheckpointError, match="step 3, but the run has only 2"):
      loop.start_or_resume(checkpointer, Batches(), abstract, initialise, 2)


@pytest.mark.parametrize("position", [{"next_batch": 2}, {"next_batch": "3"}])
def test_a_position_of_another_step_is_refused(tmp_path, position):
  abstract = shapes()
  batches = Batches()
  with Checkpointer(tmp_path, {}) as checkpointer:
    checkpointer.save(3, *zeros(), position)
    checkpointer.wait()
    with pytest.raises(
      CheckpointError, match="of step 3, .*batch .*expected 3"
    ):
      loop.start_or_resume(checkpointer, batches, abstract, zeros, 6)
  assert batches.next_batch == 0
