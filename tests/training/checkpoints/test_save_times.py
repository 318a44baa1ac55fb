"""When a checkpoint is due."""

import jax
import numpy as np
import pytest

from inp_former_jax.processes import exchange
from inp_former_jax.training.checkpoints.save_times import AUTOMATIC, SaveTimes


class Clock:
  def __init__(self):
    self.now = 100.0

  def __call__(self):
    return self.now


def saved(total, seconds_per_step=0.0, *, start=0, **settings):
  """The steps at which a checkpoint is due, by a clock of our own."""
  clock, steps = Clock(), []
  settings = {"every_steps": 0, "every_minutes": 0.0} | settings
  times = SaveTimes(start, total, clock=clock, **settings)
  for step in range(start + 1, total + 1):
    clock.now += (
      seconds_per_step(step) if callable(seconds_per_step) else seconds_per_step
    )
    if times.is_due(step):
      steps.append(step)
  return steps


def test_by_steps_as_before():
  assert saved(10, every_steps=3) == [3, 6, 9]
  assert saved(10, every_steps=3, start=4) == [6, 9]
  assert saved(10) == []


@pytest.mark.parametrize(
  "total, every", [(4, 1), (19, 1), (200, 20), (9_999, 999), (80_000, 1000)]
)
def test_by_default_at_least_ten_in_a_run(total, every):
  found = saved(total, every_steps=AUTOMATIC)
  assert found[0] == every and set(np.diff(found)) == {every}
  assert len(found) >= min(10, total)


def test_evaluated_steps_are_due_too():
  assert saved(9, every_steps=4, also_every=3) == [3, 4, 6, 8, 9]


def test_by_minutes_since_the_last_one():
  assert saved(10, 30.0, every_minutes=2.0) == [4, 8]
  # A save by steps starts the minutes anew.
  assert saved(10, 30.0, every_minutes=2.0, every_steps=3) == [3, 6, 9]
  assert saved(50, 30.0, every_minutes=2.0, every_steps=9)[:4] == [4, 8, 9, 13]


@pytest.fixture
def two_processes(monkeypatch):
  """This process is the second; the messages of the first are listed."""
  sent, received = [], []

  def gather(array):
    sent.append(int(array[0]))
    first = received.pop(0) if received else int(array[0])
    return np.array([[first], array])

  monkeypatch.setattr(jax, "process_count", lambda: 2)
  monkeypatch.setattr(exchange, "gather_processes", gather)
  return sent, received


def test_the_first_process_decides(two_processes):
  sent, received = two_processes
  received[:] = [3, 0, 500]  # asked again in 3 steps, then at once
  assert saved(100, 0.0, every_minutes=1.0) == [4]
  assert len(sent) == 3


@pytest.mark.parametrize(
  "slow", [lambda step: 0.6, lambda step: 60.0 if step == 1 else 0.3]
)
def test_the_clock_is_asked_seldom_and_is_late_by_little(two_processes, slow):
  found = saved(10_000, slow, every_minutes=10.0)
  sent, _ = two_processes
  assert len(sent) < 30 * len(found)
  seconds = np.cumsum([slow(step) for step in range(1, 10_001)])
  gaps = np.diff([0.0, *seconds[np.array(found) - 1]])
  assert (gaps >= 600).all() and (gaps < 660).all()
