"""Draws the qualitative grid: image, ground truth and map of each sample.

All maps share one colour scale (see `figures`).
"""

import dataclasses
import os
from collections.abc import Sequence

import numpy as np

from inp_former_jax.evaluation import figures
from inp_former_jax.evaluation.drawing.canvas import Canvas
from inp_former_jax.evaluation.drawing.record_display import shortened

COLUMNS = ("image", "ground truth", "anomaly map")
MAX_ROWS = 9  # more samples are drawn in several panels side by side

# Lengths in inches.
CELL, GAP, MARGIN, PANEL_GAP = 1.6, 0.05, 0.15, 0.3
CAPTION, HEADING, TITLE, NAME = 0.24, 0.2, 0.34, 0.17
COLOUR_BAR = 0.56
NO_MASK = 240  # light grey, where the ground truth is not known


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
  canvas = Canvas(width, height)
  if title:
    canvas.text(width / 2, (MARGIN + TITLE) / 2, title, fontsize=11)
  for i, sample in enumerate(samples):
    panel, row = divmod(i, rows)
    left = MARGIN + panel * (panel_width + PANEL_GAP)
    if row == 0:
      _write_headings(canvas, left, top - HEADING / 2)
    upper = top + row * pitch + CAPTION
    _draw_sample(canvas, sample, (vmin, vmax), left, upper, cell)
  length = min(3 * CELL, width - 2 * MARGIN)
  box = ((width - length) / 2, COLOUR_BAR - 0.14, length, 0.1)
  figures.draw_colour_bar(canvas.figure, box, vmin, vmax)
  canvas.save(path)


def _shape(samples: Sequence[QualitativeSample]) -> float:
  """Returns the height of the cells as a multiple of their width."""
  shapes = [sample.image.shape[:2] for sample in samples]
  tallest = max(height / width for height, width in shapes)
  return float(np.clip(tallest, 0.1, 2.0))


def _write_headings(canvas: Canvas, left: float, y: float) -> None:
  for column, heading in enumerate(COLUMNS):
    x = left + column * (CELL + GAP) + CELL / 2
    canvas.text(x, y, heading, color="0.35")


def _draw_sample(
  canvas: Canvas,
  sample: QualitativeSample,
  scale: tuple[float, float],
  left: float,
  top: float,
  cell: float,
) -> None:
  """Draws a row whose cells, `cell` inches high, begin at the given corner."""
  mask = sample.mask
  if mask is None:
    mask = np.full(sample.image.shape[:2], NO_MASK, np.uint8)
  else:
    mask = mask * np.uint8(255)
  pictures = (
    sample.image,
    np.repeat(mask[..., None], 3, axis=-1),
    figures.overlay(sample.image, sample.anomaly_map, *scale),
  )
  for column, picture in enumerate(pictures):
    canvas.picture(picture, left + column * (CELL + GAP), top, CELL, cell)
  if sample.mask is None:
    x = left + CELL + GAP + CELL / 2
    canvas.text(x, top + cell / 2, "no mask", color="0.45")
  right = left + len(COLUMNS) * (CELL + GAP) - GAP
  # There is room for 44 characters beside the score, and for 62 small ones.
  title, above = shortened(sample.title, 44), top - 0.055
  canvas.text(left, above, title, ha="left", va="baseline")
  score = f"score {sample.score:.3f}"
  canvas.text(right, above, score, ha="right", va="baseline")
  name = shortened(sample.name, 62)
  look = {"fontsize": 7, "color": "0.35"}
  canvas.text(left, top + cell + 0.03, name, ha="left", va="top", **look)
