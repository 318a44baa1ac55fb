"""Figures of anomaly maps, all drawn on one colour scale per model.

Nothing here stretches a heat map to its own range: a colour means the same
score in every image, so that a good part stays cool. `colour_scale` chooses
the range once, from normal images and, where there are any, others.

Figures are drawn by matplotlib's object-oriented interface on the Agg canvas:
no display is needed and no global state (pyplot, rcParams) is touched.
"""

import dataclasses
import os
from collections.abc import Iterable, Sequence

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
NORMAL_SHARE = 0.6  # of the scale, which the peaks of good parts may take
COLUMNS = ("image", "ground truth", "anomaly map")
MAX_ROWS = 9  # more samples stand in several panels side by side
DPI = 120  # nine rows of photographs stay below 2 MB

# Lengths in inches.
CELL, GAP, MARGIN, PANEL_GAP = 1.6, 0.05, 0.15, 0.3
CAPTION, HEADING, TITLE, COLOUR_BAR = 0.24, 0.2, 0.34, 0.56


def _heat_colours() -> ListedColormap:
  """Turbo without its two dark ends, which over a grey image look alike."""
  colours = matplotlib.colormaps["turbo"](np.linspace(0.1, 0.9, 256))
  colours[:, 3] = np.linspace(*HEAT_OPACITY, 256)
  return ListedColormap(colours)


COLOURS = _heat_colours()


@dataclasses.dataclass(frozen=True)
class ColourScale:
  """The scores at the two ends of the colours: one per model."""

  vmin: float
  vmax: float


@dataclasses.dataclass(frozen=True)
class QualitativeSample:
  """One row of a qualitative grid.

  Attributes:
    image: (H, W, 3) uint8, as the model sees it (resized and cropped).
    mask: (H, W) bool ground truth, empty for a good part; None if unknown.
    anomaly_map: (h, w) float scores over the same field of view.
    title: for example "washer / scratch".
    score: image score.
  """

  image: np.ndarray
  mask: np.ndarray | None
  anomaly_map: np.ndarray
  title: str
  score: float


def colour_scale(
  normal_maps: Iterable[np.ndarray], other_maps: Iterable[np.ndarray] = ()
) -> ColourScale:
  """Chooses the one range of colours for all maps of a model.

  The scale starts at the median score of normal pixels, so that the
  background is the coldest colour. It ends at the 90 % quantile of the peaks
  of the other maps, so that most defects come close to the hottest colour and
  a few extreme ones do not fade the rest. It is never so short that the peaks
  of normal images (their 95 % quantile) pass 60 % of it: where a model
  separates badly, defects look pale rather than good parts hot.

  Args:
    normal_maps: anomaly maps (h, w) of normal images, of any sizes.
    other_maps: anomaly maps (h, w) of defective, or unlabelled, images.

  Returns:
    The scale, with vmin < vmax.

  Raises:
    ValueError: without a normal map, or on scores that are not finite.
  """
  normal_peaks, normal_pixels = [], []
  for normal_map in normal_maps:
    normal_peaks.append(np.max(normal_map))
    # Every fourth row and column gives the median, in little memory.
    normal_pixels.append(np.asarray(normal_map)[::4, ::4].ravel())
  if not normal_peaks:
    raise ValueError("A colour scale needs at least one normal image's map.")
  other_peaks = [np.max(other_map) for other_map in other_maps]
  vmin = np.median(np.concatenate(normal_pixels).astype(np.float64))
  vmax = vmin + (np.quantile(normal_peaks, 0.95) - vmin) / NORMAL_SHARE
  if other_peaks:
    vmax = max(vmax, np.quantile(other_peaks, 0.9))
  if not np.isfinite([vmin, vmax, *normal_peaks, *other_peaks]).all():
    raise ValueError("Anomaly maps hold scores that are not finite.")
  return ColourScale(float(vmin), float(max(vmax, vmin + 1e-6)))


def overlay(
  image: np.ndarray, anomaly_map: np.ndarray, vmin: float, vmax: float
) -> np.ndarray:
  """Lays an anomaly map as a heat map over the grey image.

  The hotter, the more opaque: the image shows through where nothing is wrong.

  Args:
    image: (H, W, 3) uint8.
    anomaly_map: (h, w) float, resized bilinearly to the image.
    vmin: score of the coldest colour; lower ones take it too.
    vmax: score of the hottest colour; higher ones take it too.

  Returns:
    (H, W, 3) uint8.
  """
  height, width = image.shape[:2]
  scores = Image.fromarray(np.asarray(anomaly_map, np.float32))
  scores = scores.resize((width, height), Image.Resampling.BILINEAR)
  heat = COLOURS(_norm(vmin, vmax)(np.asarray(scores)))
  grey = np.asarray(Image.fromarray(image).convert("L"))[..., None] / 255
  return np.rint(255 * _blend(heat, grey)).astype(np.uint8)


def _blend(heat: np.ndarray, grey: np.ndarray | float) -> np.ndarray:
  """Lays colours (..., 4), their opacity last, over grey (..., 1)."""
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

  One row per sample; beyond nine rows, several panels side by side. All heat
  maps share one colour scale and its bar. The file appears whole or not at
  all.

  Args:
    path: the PNG to write; folders are created.
    samples: at least one.
    vmin: score of the coldest colour, from `colour_scale`.
    vmax: score of the hottest colour.
    title: a line above the figure.

  Raises:
    ValueError: without samples, or if vmin is not below vmax.
  """
  if not samples:
    raise ValueError(f"No samples to draw into {os.fspath(path)}.")
  panels = -(-len(samples) // MAX_ROWS)
  rows = -(-len(samples) // panels)
  panel_width = len(COLUMNS) * (CELL + GAP) - GAP
  width = 2 * MARGIN + panels * (panel_width + PANEL_GAP) - PANEL_GAP
  top = MARGIN / 2 + HEADING + (TITLE if title else 0)
  height = top + rows * (CAPTION + CELL) + MARGIN + COLOUR_BAR
  figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white")
  if title:
    y = 1 - (MARGIN + TITLE) / 2 / height
    figure.text(0.5, y, title, ha="center", va="center", fontsize=11)
  for i, sample in enumerate(samples):
    panel, row = divmod(i, rows)
    left = MARGIN + panel * (panel_width + PANEL_GAP)
    cells = _row_of_axes(figure, left, top + row * (CAPTION + CELL))
    if row == 0:
      _write_headings(cells)
    _draw_sample(cells, sample, vmin, vmax)
  _draw_colour_bar(figure, vmin, vmax)
  with replacing(path) as partial:
    FigureCanvasAgg(figure).print_png(partial)


def _row_of_axes(figure: Figure, left: float, top: float) -> list[Axes]:
  """Three cells whose caption starts `top` inches below the figure's edge."""
  width, height = figure.get_size_inches()
  bottom = height - top - CAPTION - CELL
  cells = []
  for column in range(len(COLUMNS)):
    x = left + column * (CELL + GAP)
    box = (x / width, bottom / height, CELL / width, CELL / height)
    cells.append(figure.add_axes(box, xticks=[], yticks=[], frame_on=False))
  return cells


def _write_headings(cells: list[Axes]) -> None:
  for axes, heading in zip(cells, COLUMNS, strict=True):
    y = 1 + (CAPTION + HEADING / 2) / CELL
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
  """One bar in the colours that the maps show over mid-grey."""
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
