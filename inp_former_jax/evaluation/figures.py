"""Figures of anomaly maps, all drawn on one colour scale per model.

Nothing here stretches a heat map to its own range: a colour means the same
score in every image, so that a good part stays cool.
`inference.colours.colour_scale` chooses the range once per model.

Figures are drawn by matplotlib's object-oriented interface on the Agg canvas,
which needs no display and changes no global state (pyplot, rcParams).
"""

import dataclasses
import os
from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from PIL import Image

from inp_former_jax.atomic import replacing

HEAT_OPACITY = (0.45, 0.75)  # over the grey image, at vmin and at vmax
COLUMNS = ("image", "ground truth", "anomaly map")
MAX_ROWS = 9  # more samples are drawn in several panels side by side
DPI = 120  # keeps nine rows of photographs below 2 MB

# Lengths in inches.
CELL, GAP, MARGIN, PANEL_GAP = 1.6, 0.05, 0.15, 0.3
CAPTION, HEADING, TITLE, COLOUR_BAR = 0.24, 0.2, 0.34, 0.56


def _heat_colours() -> ListedColormap:
  """Returns turbo without its dark ends, which look alike over a grey image."""
  colours = matplotlib.colormaps["turbo"](np.linspace(0.1, 0.9, 256))
  colours[:, 3] = np.linspace(*HEAT_OPACITY, 256)
  return ListedColormap(colours)


COLOURS = _heat_colours()


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
  """

  image: np.ndarray
  mask: np.ndarray | None
  anomaly_map: np.ndarray
  title: str
  score: float


def overlay(
  image: np.ndarray, anomaly_map: np.ndarray, vmin: float, vmax: float
) -> np.ndarray:
  """Overlays an anomaly map, as a heat map, on the grey image.

  Hotter colours are more opaque, so that the image shows through where nothing
  is wrong.

  Args:
    image: The image, (H, W, 3) uint8.
    anomaly_map: The anomaly map, (h, w) float, which is resized bilinearly to
      the image.
    vmin: Score of the coldest colour, which lower scores get too.
    vmax: Score of the hottest colour, which higher scores get too.

  Returns:
    The overlay, (H, W, 3) uint8.

  Raises:
    ValueError: If vmin is not below vmax.
  """
  height, width = image.shape[:2]
  scores = Image.fromarray(np.asarray(anomaly_map, np.float32))
  scores = scores.resize((width, height), Image.Resampling.BILINEAR)
  heat = COLOURS(_norm(vmin, vmax)(np.asarray(scores)))
  grey = np.asarray(Image.fromarray(image).convert("L"))[..., None] / 255
  return np.rint(255 * _blend(heat, grey)).astype(np.uint8)


def _blend(heat: np.ndarray, grey: np.ndarray | float) -> np.ndarray:
  """Blends colours (..., 4), whose last channel is opacity, over grey."""
  opacity = heat[..., 3:]
  return opacity * heat[..., :3] + (1 - opacity) * grey


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
  height = top + rows * (CAPTION + cell) + MARGIN + COLOUR_BAR
  figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white")
  if title:
    y = 1 - (MARGIN + TITLE) / 2 / height
    figure.text(0.5, y, title, ha="center", va="center", fontsize=11)
  for i, sample in enumerate(samples):
    panel, row = divmod(i, rows)
    left = MARGIN + panel * (panel_width + PANEL_GAP)
    cells = _row_of_axes(figure, left, top + row * (CAPTION + cell), cell)
    if row == 0:
      _write_headings(cells, cell)
    _draw_sample(cells, sample, vmin, vmax)
  _draw_colour_bar(figure, vmin, vmax)
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
  map_axes.imshow(overlay(sample.image, sample.anomaly_map, vmin, vmax))
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
  # There is room for 44 characters beside the score.
  text = sample.title
  text = text if len(text) <= 44 else text[:43] + "…"
  image_axes.set_title(text, loc="left", fontsize=9, pad=4)
  map_axes.set_title(
    f"score {sample.score:.3f}", loc="right", fontsize=9, pad=4
  )


def _draw_colour_bar(figure: Figure, vmin: float, vmax: float) -> None:
  """Draws the colour bar, in the colours that the maps have over mid-grey."""
  width, height = figure.get_size_inches()
  length = min(3 * CELL, width - 2 * MARGIN)
  left, bottom = (width - length) / 2, COLOUR_BAR - 0.14
  axes = figure.add_axes(
    (left / width, bottom / height, length / width, 0.1 / height)
  )
  colours = ListedColormap(_blend(np.asarray(COLOURS.colors), 0.5))
  mappable = ScalarMappable(_norm(vmin, vmax), colours)
  bar = figure.colorbar(
    mappable, axes, orientation="horizontal", extend="both", extendfrac=0.03
  )
  bar.outline.set_linewidth(0.5)
  bar.ax.tick_params(labelsize=8, width=0.5, length=2.5, pad=2)
  bar.set_label("anomaly score (1 - cosine)", fontsize=9, labelpad=2)


def _norm(vmin: float, vmax: float) -> Normalize:
  if not vmin < vmax:
    raise ValueError(f"A colour scale from {vmin} to {vmax} is empty.")
  return Normalize(vmin, vmax, clip=True)
