"""Large images in overlapping tiles, whose maps are blended into one."""

import dataclasses
import functools
from collections.abc import Iterator

import numpy as np


@dataclasses.dataclass(frozen=True)
class Tile:
  """The place of a tile in its image.

  Attributes:
    row: Index of the tile along the height.
    column: Index of the tile along the width.
    box: Left, upper, right and lower edge, in pixels of the image.
  """

  row: int
  column: int
  box: tuple[int, int, int, int]


class Tiling:
  """The tiles of an image, which overlap and end with its edges."""

  def __init__(self, size: tuple[int, int], tile: tuple[int, int, int]):
    """Places the tiles.

    Args:
      size: Height and width of the image in pixels.
      tile: Height, width and least overlap of the tiles in pixels. A tile is
        never larger than the image.
    """
    height, width, overlap = tile
    self.size = size
    self._rows = _spans(size[0], height, overlap)
    self._columns = _spans(size[1], width, overlap)

  def __len__(self) -> int:
    """Returns the number of tiles."""
    return len(self._rows) * len(self._columns)

  def __iter__(self) -> Iterator[Tile]:
    """Yields the tiles, row by row."""
    for row, (upper, lower) in enumerate(self._rows):
      for column, (left, right) in enumerate(self._columns):
        yield Tile(row, column, (left, upper, right, lower))

  def weights(self, tile: Tile) -> tuple[np.ndarray, np.ndarray]:
    """Returns the weights of a tile's pixels in the blended map.

    They are the product of a weight for the row and one for the column. The
    weights of all tiles at a pixel sum to 1.

    Args:
      tile: One of the tiles.

    Returns:
      The weights along the tile's height and width, each float32.
    """
    rows = _weights(self._rows, self.size[0])
    columns = _weights(self._columns, self.size[1])
    return rows[tile.row], columns[tile.column]


def check_tile(tile: tuple[int, int, int]) -> None:
  """Checks the sizes of tiles.

  Args:
    tile: Height, width and overlap of the tiles in pixels.

  Raises:
    ValueError: If a side is empty, or the overlap is not smaller than both.
  """
  height, width, overlap = tile
  if min(height, width) < 1 or not 0 <= overlap < min(height, width):
    raise ValueError(
      f"`tile` is {height},{width},{overlap} (height, width and overlap in "
      "pixels); expected sides above 0 and an overlap below both of them, as "
      "in 1024,1024,256."
    )


@functools.lru_cache(maxsize=32)
def _spans(size: int, length: int, overlap: int) -> tuple[tuple[int, int], ...]:
  """Returns start and end of the tiles along an axis, evenly spaced."""
  length = min(length, size)
  steps = -(-(size - length) // (length - min(overlap, length - 1)))
  starts = np.linspace(0, size - length, steps + 1).round().astype(int)
  return tuple((int(start), int(start) + length) for start in starts)


@functools.lru_cache(maxsize=8)
def _weights(
  spans: tuple[tuple[int, int], ...], size: int
) -> tuple[np.ndarray, ...]:
  """Returns Hann windows along an axis, scaled to sum to 1 at every pixel."""
  total = np.zeros(size)
  windows = []
  for start, end in spans:
    # Half a sample off the ends, so that no weight is 0.
    phase = (np.arange(end - start) + 0.5) / (end - start)
    windows.append(np.sin(np.pi * phase) ** 2)
    total[start:end] += windows[-1]
  return tuple(
    (window / total[start:end]).astype(np.float32)
    for window, (start, end) in zip(windows, spans, strict=True)
  )
