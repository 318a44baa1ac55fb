"""Searches the largest batch that fits, in few attempts."""

from collections.abc import Callable


def search(
  memory: Callable[[int], int | None], limit: int, *, start: int = 1
) -> int:
  """Finds the largest batch that fits, to a thirty-second of its size.

  It doubles, then halves the interval; where two attempts have told how memory
  grows, it tries the size that this predicts.

  Args:
    memory: Function that compiles for a batch and returns the bytes that it
      takes, or None if they are too many.
    limit: Bytes that there are, for the prediction alone.
    start: The first batch to try, 1 or more.

  Returns:
    The batch; 0 if not even a single image fits.
  """
  taken: dict[int, int] = {}
  too_large: int | None = None
  candidate = start
  while True:
    size = memory(candidate)
    if size is None:
      too_large = candidate
    else:
      taken[candidate] = size
    fits = max(taken, default=0)
    if too_large is not None and too_large - fits <= max(1, fits // 32):
      return fits
    candidate = _next(taken, too_large, limit, predict=size is not None)


def _next(
  taken: dict[int, int], too_large: int | None, limit: int, *, predict: bool
) -> int:
  """Returns a batch between the largest that fits and the one that does not."""
  *before, fits = sorted(taken) or [0]
  candidate = 2 * fits if too_large is None else (fits + too_large) // 2
  if before and predict:
    growth = (taken[fits] - taken[before[-1]]) / (fits - before[-1])
    if growth > 0:
      candidate = fits + int((limit - taken[fits]) / growth)
  candidate = max(candidate, fits + max(1, fits // 32))
  return candidate if too_large is None else min(candidate, too_large - 1)
