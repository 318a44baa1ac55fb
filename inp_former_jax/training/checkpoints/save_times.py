"""Decides after which steps a run saves a checkpoint."""

import math
import time
from collections.abc import Callable

import jax
import numpy as np

from inp_former_jax.processes import exchange

AUTOMATIC = -1  # a tenth of the run, at most MOST_STEPS
MOST_STEPS = 1000


class SaveTimes:
  """The steps and the minutes after which a checkpoint is due.

  With several processes the first one's clock decides. Asking it takes a
  message, so it is asked only near the step at which it has expected, by the
  steps so far, that the time will be up.
  """

  def __init__(
    self,
    start: int,
    total_steps: int,
    *,
    every_steps: int,
    every_minutes: float,
    also_every: int = 0,
    clock: Callable[[], float] = time.monotonic,
  ):
    """Starts the clock.

    Args:
      start: Number of steps already taken.
      total_steps: Number of steps of the whole run.
      every_steps: Number of steps between checkpoints; 0 for none, AUTOMATIC
        for a tenth of the run and at most MOST_STEPS.
      every_minutes: Minutes after which a checkpoint is due; 0 for never.
      also_every: Further number of steps between checkpoints; 0 for none.
      clock: Function that returns the seconds.
    """
    if every_steps == AUTOMATIC:
      every_steps = min(max(1, total_steps // 10), MOST_STEPS)
    self._every = [n for n in (every_steps, also_every) if n > 0]
    self._seconds = every_minutes * 60 if every_minutes else math.inf
    self._clock = clock
    self._restart(start)

  def _restart(self, step: int) -> None:
    self._saved_at = self._clock()
    self._saved_step = step
    self._ask_at = step + 1

  def is_due(self, step: int) -> bool:
    """Returns whether to save after a step; it is asked after every step.

    Args:
      step: Number of steps taken so far, equal on all processes.
    """
    by_steps = any(step % every == 0 for every in self._every)
    if by_steps or self._time_is_up(step):
      self._restart(step)
      return True
    return False

  def _time_is_up(self, step: int) -> bool:
    if self._seconds == math.inf or step < self._ask_at:
      return False
    wait = self._steps_to_wait(step)
    if jax.process_count() > 1:
      wait = int(exchange.gather_processes(np.array([wait]))[0, 0])
      self._ask_at = step + wait
    return wait == 0

  def _steps_to_wait(self, step: int) -> int:
    """Returns the steps that this process expects until the time is up."""
    taken = step - self._saved_step
    elapsed = self._clock() - self._saved_at
    left = self._seconds - elapsed
    if left <= 0:
      return 0
    # At most as many as were taken, because the first ones are compiled and
    # later ones may be slower.
    expected = math.ceil(left * taken / max(elapsed, 1e-9))
    return min(max(1, expected), max(1, taken))
