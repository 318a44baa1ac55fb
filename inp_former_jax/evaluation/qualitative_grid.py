"""Draws the qualitative grid: image, ground truth and map of each sample.

All maps share one colour scale (see `figures`). The grid is drawn by
matplotlib's object-oriented interface on the Agg canvas, which needs no display
and changes no global state (pyplot, rcParams).
"""

import dataclasses
import os
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from inp_former_jax.atomic import replacing
from inp_former_jax.evaluation import figures
from inp_former_jax.evaluation.record_display import drawable, shortened

COLUMNS = ("image", "ground truth", "anomaly map")
MAX_ROWS = 9  # more samples are drawn in several panels side by side
DPI = 120  # keeps nine rows of photographs below 2 MB

# Lengths in inches.
CELL, GAP, MARGIN, PANEL_GAP = 1.6, 0.05, 0.15, 0.3
CAPTION, HEADING, TITLE, NAME = 0.24, 0.2, 0.34, 0.17
COLOUR_BAR = 0.56


@dataclasses.dataclass(frozen=True)
class QualitativeSample:
  """A row of the qualitative grid.

  Attributes:
    image: The image as the model sees it (resized and cropped), (H, W, 3)
      uint8.
    mask: Ground truth, (H, W) bool, all False for a good part; None if it is
      unknown.
    anomaly_map: Anomaly map over the same field of view, (h, w) float.
    title: Title of the row, for example "washer / scratch".
    score: Image score.
    name: Name of the image, which is written below it; empty for none.
  """

  image: np.ndarray
  mask: np.ndarray | None
  anomaly_map: np.ndarray
  title: str
  score: float
  name: str = ""


def save_qualitative_grid(
  path: str | os.PathLike,
  samples: Sequence[QualitativeSample],
  *,
  vmin: float,
  vmax: float,
  title: str | None = None,
) -> None:
  """Saves image, ground truth and anomaly map of each sample as a PNG.

  Each sample has a row; more than nine rows are split into panels side by side.
  All heat maps share one colour scale and its bar. The file is written
  atomically.

  Args:
    path: The PNG file to write; its folder is created if necessary.
    samples: The samples to draw, at least one.
    vmin: Score of the coldest colour, from `colour_scale`.
    vmax: Score of the hottest colour, from `colour_scale`.
    title: Title of the figure, if any.

  Raises:
    ValueError: If there are no samples, or if vmin is not below vmax.
  """
  if not samples:
    raise ValueError(f"No samples to draw into {os.fspath(path)}.")
  panels = -(-len(samples) // MAX_ROWS)
  rows = -(-len(samples) // panels)
  panel_width = len(COLUMNS) * (CELL + GAP) - GAP
  width = 2 * MARGIN + panels * (panel_width + PANEL_GAP) - PANEL_GAP
  top = MARGIN / 2 + HEADING + (TITLE if title else 0)
  cell = CELL * _shape(samples)
  below = NAME if any(sample.name for sample in samples) else 0.0
  pitch = CAPTION + cell + below
  height = top + rows * pitch + MARGIN + COLOUR_BAR
  figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white")
  if title:
    y = 1 - (MARGIN + TITLE) / 2 / height
    figure.text(0.5, y, title, ha="center", va="center", fontsize=11)
  for i, sample in enumerate(samples):
    panel, row = divmod(i, rows)
    left = MARGIN + panel * (panel_width + PANEL_GAP)
    cells = _row_of_axes(figure, left, top + row * pitch, cell)
    if row == 0:
      _write_headings(cells, cell)
    _draw_sample(cells, sample, vmin, vmax)
  length = min(3 * CELL, width - 2 * MARGIN)
  box = ((width - length) / 2, COLOUR_BAR - 0.14, length, 0.1)
  figures.draw_colour_bar(figure, box, vmin, vmax)
  with replacing(path) as partial:
    FigureCanvasAgg(figure).print_png(partial)


def _shape(samples: Sequence[QualitativeSample]) -> float:
  """Returns the height of the cells as a multiple of their width."""
  shapes = [sample.image.shape[:2] for sample in samples]
  tallest = max(height / width for height, width in shapes)
  return float(np.clip(tallest, 0.1, 2.0))


def _row_of_axes(
  figure: Figure, left: float, top: float, cell: float
) -> list[Axes]:
  """Adds three cells whose caption starts `top` inches below the upper edge."""
  width, height = figure.get_size_inches()
  bottom = height - top - CAPTION - cell
  cells = []
  for column in range(len(COLUMNS)):
    x = left + column * (CELL + GAP)
    box = (x / width, bottom / height, CELL / width, cell / height)
    cells.append(figure.add_axes(box, xticks=[], yticks=[], frame_on=False))
  return cells


def _write_headings(cells: list[Axes], cell: float) -> None:
  for axes, heading in zip(cells, COLUMNS, strict=True):
    y = 1 + (CAPTION + HEADING / 2) / cell
    axes.text(
      0.5,
      y,
      heading,
      transform=axes.transAxes,
      ha="center",
      va="center",
      fontsize=9,
      color="0.35",
    )


def _draw_sample(
  cells: list[Axes], sample: QualitativeSample, vmin: float, vmax: float
) -> None:
  image_axes, mask_axes, map_axes = cells
  image_axes.imshow(sample.image)
  map_axes.imshow(figures.overlay(sample.image, sample.anomaly_map, vmin, vmax))
  if sample.mask is None:
    mask_axes.set(frame_on=True, facecolor="0.94")
    mask_axes.spines[:].set_visible(False)
    mask_axes.text(
      0.5,
      0.5,
      "no mask",
      transform=mask_axes.transAxes,
      ha="center",
      va="center",
      fontsize=9,
      color="0.45",
    )
  else:
    mask_axes.imshow(sample.mask, cmap="gray", vmin=0, vmax=1)
  # There is room for 44 characters beside the score, and for 62 small ones.
  text = drawable(shortened(sample.title, 44))
  image_axes.set_title(text, loc="left", fontsize=9, pad=4, parse_math=False)
  map_axes.set_title(
    f"score {sample.score:.3f}", loc="right", fontsize=9, pad=4
  )
  image_axes.annotate(
    drawable(shortened(sample.name, 62)),
    (0, 0),
    (0, -3),
    xycoords="axes fraction",
    textcoords="offset points",
    va="top",
    fontsize=7,
    color="0.35",
    parse_math=False,
  )
