"""Notices a process that is dead or out of reach, where nothing else does.

An exchange between devices that waits for such a process may wait for ever. So
each process gives signs of life; the first one watches all others, and they
watch the first.
"""

import itertools
import threading
import time
from collections.abc import Mapping

from inp_former_jax.processes import ending, messages

_FIRST = "inp_former_jax/liveness/first"
_OTHERS = "inp_former_jax/liveness/others"
EVERY = 3.0  # seconds
# Longer than a living process should be busy without letting a thread run.
SILENCE = 27.0  # seconds


def watch(left: threading.Event) -> threading.Thread:
  """Starts the thread that gives and watches signs of life.

  Args:
    left: Set when this process has left the others.

  Returns:
    The thread, which ends when `left` is set.
  """
  thread = threading.Thread(
    target=_watch, args=(left,), name="liveness", daemon=True
  )
  thread.start()
  return thread


class Watch:
  """Tells which processes have given no sign of life for long."""

  def __init__(self, numbers: range, now: float):
    """Begins to watch.

    Args:
      numbers: The processes to watch.
      now: The time in seconds, of any clock that only goes forward.
    """
    self._last = {str(number): ("", now) for number in numbers}

  def silent(self, signs: Mapping[str, str], now: float) -> list[int]:
    """Returns the processes whose sign has not changed for SILENCE seconds.

    Args:
      signs: The newest sign of each process, by its number.
      now: The time in seconds.
    """
    for number, (sign, _) in self._last.items():
      found = signs.get(number, "")
      if found != sign:
        self._last[number] = found, now
    return [
      int(number)
      for number, (_, since) in self._last.items()
      if now - since > SILENCE
    ]


def _watch(left: threading.Event) -> None:
  is_first = messages.index() == 0
  others = range(1, messages.count())
  watched = Watch(others if is_first else range(1), time.monotonic())
  mine = f"{_FIRST if is_first else _OTHERS}/{messages.index()}"
  for count in itertools.count():
    try:
      messages.put_newest(mine, str(count))
      # Only the first one reads all signs, so that a pod's do not add up.
      signs = messages.under(_OTHERS if is_first else _FIRST)
    except (RuntimeError, AssertionError):
      return  # shut down, or the first host is lost: then JAX aborts this one
    silent = watched.silent(signs, time.monotonic())
    if silent:
      who = ending.name_processes(silent)
      line = f"error: the {who} gave no sign of life for {SILENCE:.0f} seconds."
      ending.end_all(1, line)
    if left.wait(EVERY):
      return
