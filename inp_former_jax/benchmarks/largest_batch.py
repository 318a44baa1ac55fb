"""Searches the largest batch that fits, in few attempts."""

from collections.abc import Callable


def search(
  memory: Callable[[int], int | None], limit: int, *, start: int = 1
) -> int:
  """Finds the largest batch that fits, to a sixteenth of its size.

  It tries the size that the memory of the attempts before predicts, until that
  was once too large; then it halves the interval.

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
  candidate, predicted, trusted = start, False, True
  while True:
    size = memory(candidate)
    if size is None:
      too_large = candidate
      trusted = trusted and not predicted
    else:
      taken[candidate] = size
    fits = max(taken, default=0)
    if too_large is not None and too_large - fits <= max(1, fits // 16):
      return fits
    prediction = _predict(taken, limit) if trusted and size is not None else 0
    predicted = prediction > 0
    doubled = 2 * fits if too_large is None else (fits + too_large) // 2
    candidate = max(prediction or doubled, fits + max(1, fits // 16))
    if too_large is not None:
      candidate = min(candidate, too_large - 1)


def _predict(taken: dict[int, int], limit: int) -> int:
  """Returns the batch that takes all memory; 0 if the attempts do not tell."""
  if not taken:
    return 0
  # Of one attempt the part that does not grow with the batch is not known; to
  # take it for 0 predicts too little.
  *_, before, fits = sorted({0: 0} | taken)
  growth = (taken[fits] - taken.get(before, 0)) / (fits - before)
  left = limit - taken[fits]
  if growth <= 0 or left <= 0:
    return 0
  return fits + min(int(left / growth), 15 * fits)
