"""Runs a function over many items in threads, in order and in little memory."""

import collections
import concurrent.futures
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def ordered_map(
  executor: concurrent.futures.Executor,
  function: Callable[[Item], Result],
  items: Iterable[Item],
  ahead: int,
) -> Iterator[Result]:
  """Applies a function in the background, a bounded number of items ahead.

  Unlike `Executor.map`, it takes an item only when there is room for its
  result, so that memory stays flat over any number of items.

  Args:
    executor: The threads or processes that run the function.
    function: The function of an item.
    items: The items, taken in the thread of the caller.
    ahead: The largest number of results that wait for the caller, at least 1.

  Yields:
    The results, in the order of the items.
  """
  pending: collections.deque = collections.deque()
  try:
    for item in items:
      pending.append(executor.submit(function, item))
      # A source that waits for its next item must not hold back results.
      while pending and (len(pending) >= ahead or pending[0].done()):
        yield pending.popleft().result()
    while pending:
      yield pending.popleft().result()
  finally:
    for future in pending:
      future.cancel()
