"""How time grows with the batch and with the size of the images.

Time should be a straight line: over the images of a batch, and over the
operations of larger images, whose attention grows with the square of their
patches.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from inp_former_jax.benchmarks.speed import Point, Speed, Speeds
from inp_former_jax.benchmarks.speed_table import format_rates

STRAIGHT = 0.1  # largest deviation from a straight line, as a share of the time
_FEWEST = 3  # points; any two lie on a line


@dataclasses.dataclass(frozen=True)
class Line:
  """A straight line through measured times.

  Attributes:
    what: What was measured, and over what.
    start: Seconds at 0.
    slope: Seconds for each unit.
    unit: The unit of the abscissa.
    deviation: The largest deviation of a measured time from the line, as a
      share of the time.
  """

  what: str
  start: float
  slope: float
  unit: str
  deviation: float

  @property
  def is_straight(self) -> bool:
    """Whether all times lie on the line, but for STRAIGHT."""
    return self.deviation <= STRAIGHT

  def describe(self) -> str:
    """Describes the line and what it says, in a line."""
    verdict = "a straight line" if self.is_straight else "NOT a straight line"
    return (
      f"{self.what}: {self.start:.3g} s {self.slope:+.3g} s for each "
      f"{self.unit}; largest deviation {self.deviation:.0%}: {verdict}"
    )


def fit(
  what: str, unit: str, x: Sequence[float], seconds: Sequence[float]
) -> Line | None:
  """Fits a straight line to measured times.

  Args:
    what: What was measured, and over what.
    unit: The unit of the abscissa.
    x: The abscissas.
    seconds: The times.

  Returns:
    The line of which the deviations, as shares of the times, have the least sum
    of squares; None if there are fewer than three abscissas.
  """
  if len(set(x)) < _FEWEST:
    return None
  times = np.asarray(seconds, np.float64)
  columns = np.stack([np.ones(len(x)), np.asarray(x, np.float64)], axis=1)
  (start, slope), *_ = np.linalg.lstsq(
    columns / times[:, None], np.ones(len(x)), rcond=None
  )
  deviations = columns @ [start, slope] / times - 1
  return Line(what, start, slope, unit, float(np.abs(deviations).max()))


def points(
  batch_sizes: Sequence[int],
  crops: Sequence[int],
  batch_size: int,
  crop: tuple[int, int],
) -> list[Point]:
  """Returns the sizes to measure at: all batches at one crop, and all crops.

  Args:
    batch_sizes: Numbers of images in a batch, measured at `crop`.
    crops: Sides of square images in pixels, measured at `batch_size`.
    batch_size: Number of images in a batch.
    crop: Height and width of the images in pixels.
  """
  wanted = [Point(size, crop) for size in batch_sizes]
  wanted += [Point(batch_size, (side, side)) for side in crops]
  return list(dict.fromkeys(wanted))


def lines(found: Speeds, batch_size: int, crop: tuple[int, int]) -> list[Line]:
  """Fits lines to the times of every kind of work with every encoder.

  Args:
    found: What `speed.measure` returned for `points`.
    batch_size: The batch at which the crops were measured.
    crop: The crop at which the batches were measured.

  Returns:
    The lines over the images of a batch and over the operations of a batch,
    where there are enough points for one.
  """
  result = []
  for encoder, work in dict.fromkeys((s.encoder, s.work) for s in found.speeds):
    same = [s for s in found.speeds if (s.encoder, s.work) == (encoder, work)]
    name = f"{encoder} {work}"
    by_batch = [s for s in same if s.crop == crop]
    by_crop = [s for s in same if s.batch_size == batch_size]
    result += [
      fit(
        f"{name} over the images of a batch",
        "image",
        [s.batch_size for s in by_batch],
        [_median(s) for s in by_batch],
      ),
      fit(
        f"{name} over the operations of larger images",
        "GFLOP",
        [s.flops * s.batch_size / 1e9 for s in by_crop],
        [_median(s) for s in by_crop],
      ),
    ]
  return [line for line in result if line]


def _median(speed: Speed) -> float:
  return float(np.median(speed.seconds))


def format_table(found: Speeds, fitted: Sequence[Line]) -> str:
  """Formats time, memory, operations and fraction of the floor by size.

  Args:
    found: What `speed.measure` returned for `points`.
    fitted: The lines.
  """
  table = [
    format_rates(found.rates),
    "growth: milliseconds and GFLOP an image, memory in MB of 10^6 bytes",
    f"{'encoder':<24}{'work':<9}{'batch':>5}{'pixels':>9}{'ms':>9}"
    f"{'GFLOP':>8}{'temp.':>8}{'host':>8}{'of floor':>9}",
  ]
  for speed in found.speeds:
    height, width = speed.crop
    time = 1e3 * _median(speed) / speed.batch_size
    temporary = speed.temporary_bytes
    table.append(
      f"{speed.encoder:<24}{speed.work:<9}{speed.batch_size:>5}"
      f"{f'{width}x{height}':>9}{time:>9.1f}{speed.flops / 1e9:>8.2f}"
      f"{'-' if temporary is None else f'{temporary / 1e6:.0f}':>8}"
      f"{speed.host_bytes / 1e6:>8.0f}{speed.fraction.median:>9.3f}"
    )
  table += found.too_large
  if not fitted:
    fewest = f"No line is fitted to fewer than {_FEWEST} sizes."
    return "\n".join([*table, fewest])
  return "\n".join([*table, *(line.describe() for line in fitted)])
