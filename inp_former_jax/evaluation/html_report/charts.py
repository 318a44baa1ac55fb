"""Charts of an evaluation as numbers ready for templates/chart.svg."""

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np
import scipy.stats
from matplotlib.ticker import MaxNLocator

from inp_former_jax.evaluation.curves import Curve

# Sides in units of the drawing; x grows to the right and y downwards.
WIDTH, HEIGHT = 340.0, 230.0
LEFT, RIGHT, TOP, BOTTOM = 46.0, 12.0, 14.0, 38.0
DENSITY_POINTS = 120
MAX_RUG = 150  # more scores than these are not drawn one by one
MIN_FOR_DENSITY = 3


@dataclasses.dataclass(frozen=True)
class Line:
  """A line of a chart.

  Attributes:
    name: What the legend says; empty for a line that is not in the legend.
    style: The class of its colour, "a", "b" or "c".
    points: The points, "x,y x,y ...", in units of the drawing.
    area: Whether the area below it is filled.
  """

  name: str
  style: str
  points: str
  area: bool = False


@dataclasses.dataclass(frozen=True)
class Mark:
  """A point, or a tick of a rug, in units of the drawing."""

  style: str
  x: float
  y: float


@dataclasses.dataclass(frozen=True)
class Chart:
  """A chart, in units of the drawing.

  Attributes:
    title: The heading.
    x_label: What is along the x axis.
    y_label: What is along the y axis; empty if it has no numbers.
    x_ticks: Positions and texts along the x axis.
    y_ticks: Positions and texts along the y axis.
    lines: The lines.
    dots: Points at a threshold.
    rug: Single values, drawn as ticks at the x axis.
    threshold: Position of a vertical line at a threshold, if any.
    threshold_text: What is written at that line.
  """

  title: str
  x_label: str
  y_label: str
  x_ticks: Sequence[tuple[float, str]]
  y_ticks: Sequence[tuple[float, str]]
  lines: Sequence[Line]
  dots: Sequence[Mark] = ()
  rug: Sequence[Mark] = ()
  threshold: float | None = None
  threshold_text: str = ""


class Axis:
  """A linear scale from values to units of the drawing."""

  def __init__(self, low: float, high: float, start: float, end: float):
    """Makes the scale that takes low to start, and high to end."""
    self.low, self.high = low, high if high > low else low + 1.0
    self._start, self._end = start, end

  @classmethod
  def across(cls, low: float, high: float) -> "Axis":
    """Returns the x axis of a chart."""
    return cls(low, high, LEFT, WIDTH - RIGHT)

  @classmethod
  def upwards(cls, low: float, high: float) -> "Axis":
    """Returns the y axis of a chart."""
    return cls(low, high, HEIGHT - BOTTOM, TOP)

  def __call__(self, value):
    """Returns the positions of values; those outside are at the ends."""
    share = (np.clip(value, self.low, self.high) - self.low) / (
      self.high - self.low
    )
    return self._start + share * (self._end - self._start)

  def ticks(self) -> list[tuple[float, str]]:
    """Returns positions and texts of about five round numbers."""
    values = MaxNLocator(5).tick_values(self.low, self.high)
    margin = 1e-9 * (self.high - self.low)
    inside = [v for v in values if self.low - margin <= v <= self.high + margin]
    return [(round(float(self(v)), 1), f"{v:.4g}") for v in inside]


def points(x_axis: Axis, y_axis: Axis, x, y) -> str:
  """Formats a line's points."""
  pairs = zip(x_axis(np.asarray(x)), y_axis(np.asarray(y)), strict=True)
  return " ".join(f"{a:.1f},{b:.1f}" for a, b in pairs)


def rate_chart(
  title: str,
  x_label: str,
  y_label: str,
  curves: Iterable[tuple[str, str, Curve]],
  *,
  x_end: float = 1.0,
  dots: Iterable[tuple[str, float, float]] = (),
) -> Chart:
  """Draws curves of rates over rates.

  Args:
    title: The heading.
    x_label: What is along the x axis.
    y_label: What is along the y axis.
    curves: Name, style and curve of each line.
    x_end: Where the x axis ends.
    dots: Style and position of points to mark.
  """
  across, upwards = Axis.across(0.0, x_end), Axis.upwards(0.0, 1.0)
  lines = []
  for name, style, curve in curves:
    x, y = _cut(curve, x_end)
    lines.append(Line(name, style, points(across, upwards, x, y)))
  return Chart(
    title,
    x_label,
    y_label,
    across.ticks(),
    upwards.ticks(),
    lines,
    dots=[Mark(s, float(across(x)), float(upwards(y))) for s, x, y in dots],
  )


def _cut(curve: Curve, x_end: float) -> tuple[np.ndarray, np.ndarray]:
  """Returns the part of an ascending curve up to `x_end`."""
  if x_end >= 1.0:
    return curve.x, curve.y
  inside = curve.x <= x_end
  last = np.interp(x_end, curve.x, curve.y)
  return np.append(curve.x[inside], x_end), np.append(curve.y[inside], last)


def density_chart(
  title: str,
  normal: np.ndarray,
  defective: np.ndarray,
  threshold: float | None,
) -> Chart:
  """Draws the densities of the scores of normal and defective images.

  Args:
    title: The heading.
    normal: Scores of the normal images, (n,).
    defective: Scores of the defective images, (m,).
    threshold: The image threshold, if there is one.
  """
  every = np.concatenate([normal, defective]).astype(np.float64)
  ends = [*every, threshold] if threshold is not None else every
  low, high = float(np.min(ends)), float(np.max(ends))
  margin = 0.08 * (high - low) or 0.01
  across = Axis.across(low - margin, high + margin)
  grid = np.linspace(across.low, across.high, DENSITY_POINTS)
  found = [
    (f"normal ({len(normal)})", "a", normal, _density(normal, grid)),
    (
      f"defective ({len(defective)})",
      "b",
      defective,
      _density(defective, grid),
    ),
  ]
  tops = [d.max() for *_, d in found if d is not None]
  upwards = Axis.upwards(0.0, 1.05 * max(tops, default=1.0))
  lines, rug = [], []
  for row, (name, style, scores, density) in enumerate(found):
    if density is None:
      lines.append(Line(name, style, ""))
    else:
      shape = points(across, upwards, grid, density)
      lines.append(Line(name, style, shape, area=True))
    if len(scores) <= MAX_RUG:
      bottom = HEIGHT - BOTTOM - 7.0 * row
      rug += [Mark(style, round(float(x), 1), bottom) for x in across(scores)]
  return Chart(
    title,
    "image score",
    "density",
    across.ticks(),
    (),
    lines,
    rug=rug,
    threshold=None if threshold is None else float(across(threshold)),
    threshold_text="" if threshold is None else f"threshold {threshold:.4g}",
  )


def _density(scores: np.ndarray, grid: np.ndarray) -> np.ndarray | None:
  """Estimates a density by Gaussian kernels; None where it has no width."""
  scores = np.asarray(scores, np.float64)
  if len(scores) < MIN_FOR_DENSITY or np.ptp(scores) < 1e-9:
    return None
  return scipy.stats.gaussian_kde(scores)(grid)


def progress_chart(
  title: str, y_label: str, series: Iterable[tuple[str, str, Curve]]
) -> Chart:
  """Draws what was logged during training over the steps.

  Args:
    title: The heading.
    y_label: What is along the y axis.
    series: Name, style and curve of each line, at least one.
  """
  series = list(series)
  across = Axis.across(0.0, float(max(curve.x.max() for *_, curve in series)))
  high = float(max(curve.y.max() for *_, curve in series))
  low = min(0.0, float(min(curve.y.min() for *_, curve in series)))
  upwards = Axis.upwards(low, high * 1.05)
  return Chart(
    title,
    "step",
    y_label,
    across.ticks(),
    upwards.ticks(),
    [
      Line(name, style, points(across, upwards, curve.x, curve.y))
      for name, style, curve in series
    ],
  )
