"""Processes that are threads of one, with what they exchange."""

import threading
from collections.abc import Callable
from typing import TypeVar

import jax
import numpy as np
import pytest

from inp_former_jax.processes import exchange

T = TypeVar("T")


def simulate(
  monkeypatch: pytest.MonkeyPatch, count: int, work: Callable[[int], T]
) -> list[T]:
  """Runs a function on several simulated processes at the same time.

  Args:
    monkeypatch: Replaces the number and index of the process, and the exchange
      between processes.
    count: Number of processes.
    work: The function, which is called with the index of its process. All
      processes must exchange arrays equally often and of the same shapes.

  Returns:
    What the processes returned, by their index.
  """
  own = threading.local()
  sent: list[np.ndarray] = [np.zeros(0)] * count
  barrier = threading.Barrier(count, timeout=60)

  def gather(array: np.ndarray) -> np.ndarray:
    sent[own.index] = array
    barrier.wait()
    gathered = np.stack(sent)  # fails if the shapes differ
    barrier.wait()  # all have read before any sends again
    return gathered

  def total(array: np.ndarray) -> np.ndarray:
    return gather(array).sum(axis=0, dtype=array.dtype)

  monkeypatch.setattr(jax, "process_count", lambda: count)
  monkeypatch.setattr(jax, "process_index", lambda: own.index)
  monkeypatch.setattr(exchange, "gather_processes", gather)
  monkeypatch.setattr(exchange, "sum_over_processes", total)
  results: list[T | BaseException] = [RuntimeError("did not run")] * count

  def run(index: int) -> None:
    own.index = index
    try:
      results[index] = work(index)
    except BaseException as error:
      results[index] = error
      barrier.abort()

  threads = [threading.Thread(target=run, args=(i,)) for i in range(count)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  monkeypatch.undo()
  found: list[T] = []
  for result in results:
    if isinstance(result, BaseException):
      raise result
    found.append(result)
  return found
