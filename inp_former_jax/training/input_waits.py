"""Compares how long each process waits for its input, and names a straggler."""

import time
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from inp_former_jax.processes import exchange
from inp_former_jax.training.progress import announce

# Shares of the time: below the first a wait does not matter, and a straggler
# waits for more than the other processes by the second.
_MATTERS, _MORE = 0.2, 0.15


class InputWaits:
  """An iterator over batches that measures the waits for them.

  All processes take their steps together, so one whose input is slow holds all
  of them up, and its wait is what tells it from the others.
  """

  def __init__(self, batches):
    """Wraps an iterator.

    Args:
      batches: Iterator over this process's rows of each batch.
    """
    self._batches = batches
    self._seconds = 0.0

  def __iter__(self) -> "InputWaits":
    """Returns itself."""
    return self

  def __next__(self) -> Mapping[str, Any]:
    """Returns the next batch."""
    began = time.perf_counter()
    batch = next(self._batches)
    self._seconds += time.perf_counter() - began
    return batch

  def compare(
    self, seconds: float, images_per_second: float
  ) -> dict[str, float]:
    """Compares the waits since the last call on all processes.

    All processes must call this after the same step. With a single process
    there is nothing to compare.

    Args:
      seconds: Seconds since the last call.
      images_per_second: Images per second of all processes together.

    Returns:
      Values for the log: `images_per_second_per_process`, and the largest and
      the median share of the time that a process waited for its input,
      `input_wait_max` and `input_wait_median`.
    """
    own, self._seconds = self._seconds, 0.0
    if jax.process_count() == 1:
      return {}
    shares = exchange.gather_processes(
      np.array(own / max(seconds, 1e-9), np.float32)
    )
    warning = describe_straggler(shares)
    if warning:
      announce(warning)
    return {
      "images_per_second_per_process": round(
        images_per_second / len(shares), 2
      ),
      "input_wait_max": round(float(shares.max()), 3),
      "input_wait_median": round(float(np.median(shares)), 3),
    }


def describe_straggler(shares: np.ndarray) -> str:
  """Describes the process that holds up the others, if there is one.

  Args:
    shares: The share of the time that each process waited for its input, (P,).

  Returns:
    A line for the user; empty if no process waits for much longer than the
    others do.
  """
  slowest = int(shares.argmax())
  others = float(np.median(np.delete(shares, slowest)))
  if shares[slowest] < _MATTERS or shares[slowest] - others < _MORE:
    return ""
  return (
    f"Warning: process {slowest} waited for its input {shares[slowest]:.0%} of "
    f"the time and the others {others:.0%}, so it holds all of them up. Check "
    "the disk and the CPU of its host."
  )
