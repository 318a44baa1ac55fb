"""Times several functions in turn, round after round.

A slow minute of the machine then slows all of them, and their ratios within a
round hold.
"""

import dataclasses
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any


def interleave(
  calls: Mapping[Any, Callable[[], object]], *, rounds: int, seconds: float
) -> dict[Any, tuple[float, ...]]:
  """Times every function in every round.

  Args:
    calls: The functions by name. Each does its work once and waits for it; it
      has been called before, so that nothing is left to compile.
    rounds: Number of rounds.
    seconds: Shortest duration of a measurement in seconds.

  Returns:
    The seconds of a call, a mean for each round, by name.
  """
  found: dict[Any, list[float]] = {name: [] for name in calls}
  for _ in range(rounds):
    for name, call in calls.items():
      found[name].append(seconds_of_call(call, seconds))
  return {name: tuple(values) for name, values in found.items()}


def seconds_of_call(call: Callable[[], object], seconds: float) -> float:
  """Returns the mean duration of calls.

  Args:
    call: The function to call, at least once.
    seconds: Shortest duration of all calls together in seconds.
  """
  count, start = 0, time.perf_counter()
  while (elapsed := time.perf_counter() - start) < seconds or count == 0:
    call()
    count += 1
  return elapsed / count


@dataclasses.dataclass(frozen=True)
class Spread:
  """Median and range of the values of several rounds.

  Attributes:
    median: The median.
    low: The lowest value.
    high: The highest value.
  """

  median: float
  low: float
  high: float

  @classmethod
  def of(cls, values: Sequence[float]) -> "Spread":
    """Returns the spread of at least one value."""
    return cls(statistics.median(values), min(values), max(values))
