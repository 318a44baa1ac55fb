"""Pictures of anomaly maps, all drawn on one colour scale per model.

Nothing here stretches a heat map to its own range: a colour means the same
score in every image, so that a good part stays cool.
`inference.colours.colour_scale` chooses the range once per model.

What was not inspected, where the map is NaN, is hatched. Pictures are coloured
by a table and in bands of rows, so that a picture of many megapixels takes
little more memory than the picture itself.
"""

import functools

import matplotlib
import numpy as np
import scipy.ndimage
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from PIL import Image

from inp_former_jax.inference.colours import ColourScale
from inp_former_jax.inference.decision import Thresholds

HEAT_OPACITY = (0.45, 0.75)  # over the grey image, at vmin and at vmax
LINE, CASING = (255, 255, 255), (200, 0, 90)  # colours of a contour
HATCH_DARK, HATCH_LIGHT = 96, 176  # grey of the hatching's stripes
HATCH_OPACITY = 0.6  # over the grey image
UNIT = "anomaly score (1 - cosine)"
_BAND = 256  # rows that are coloured at once
_BAR_INCHES = (6.0, 0.56)  # width and height of a colour bar with its numbers


def _heat_colours() -> ListedColormap:
  """Returns turbo without its dark ends, which look alike over a grey image."""
  colours = matplotlib.colormaps["turbo"](np.linspace(0.1, 0.9, 256))
  colours[:, 3] = np.linspace(*HEAT_OPACITY, 256)
  return ListedColormap(colours)


COLOURS = _heat_colours()


@functools.cache
def _colour_table() -> np.ndarray:
  """Returns the colour of each level over each grey, (256, 256, 3) uint8."""
  heat = np.asarray(COLOURS.colors)[:, None]
  grey = np.arange(256)[:, None] / 255
  return np.rint(255 * _blend(heat, grey)).astype(np.uint8)


def overlay(
  image: np.ndarray, anomaly_map: np.ndarray, vmin: float, vmax: float
) -> np.ndarray:
  """Overlays an anomaly map, as a heat map, on the grey image.

  Hotter colours are more opaque, so that the image shows through where nothing
  is wrong.

  Args:
    image: The image, (H, W, 3) uint8.
    anomaly_map: The anomaly map, (h, w) float, which is resized bilinearly to
      the image. Where it is NaN, the image is hatched.
    vmin: Score of the coldest colour, which lower scores get too.
    vmax: Score of the hottest colour, which higher scores get too.

  Returns:
    The overlay, (H, W, 3) uint8.

  Raises:
    ValueError: If vmin is not below vmax.
  """
  scores = at_size(anomaly_map, image.shape[:2])
  norm, table = _norm(vmin, vmax), _colour_table()
  stripe = max(3, round(min(image.shape[:2]) / 60))
  result = np.empty(image.shape, np.uint8)
  for first in range(0, len(image), _BAND):
    rows = slice(first, first + _BAND)
    grey = np.asarray(Image.fromarray(image[rows]).convert("L"))
    unseen = np.isnan(scores[rows])
    levels = 256 * norm(np.where(unseen, vmin, scores[rows])).data
    result[rows] = table[np.minimum(levels.astype(np.intp), 255), grey]
    if unseen.any():
      result[rows][unseen] = _hatching(grey, unseen, first, stripe)[:, None]
  return result


def _hatching(
  grey: np.ndarray, unseen: np.ndarray, first: int, stripe: int
) -> np.ndarray:
  """Returns the grey of the pixels that are hatched.

  Args:
    grey: The image, (rows, W) uint8.
    unseen: Which pixels are hatched, (rows, W) bool.
    first: Number of rows of the picture above these.
    stripe: Width of a stripe, along a row, in pixels.

  Returns:
    The grey of the n hatched pixels, (n,) uint8.
  """
  row, column = unseen.nonzero()
  dark = (row + first + column) // stripe % 2 == 0
  stripes = np.where(dark, HATCH_DARK, HATCH_LIGHT)
  mixed = HATCH_OPACITY * stripes + (1 - HATCH_OPACITY) * grey[unseen]
  return np.rint(mixed).astype(np.uint8)


def heat(anomaly_map: np.ndarray, scale: ColourScale) -> np.ndarray:
  """Colours an anomaly map, as the overlay does over a mid-grey image.

  Args:
    anomaly_map: The anomaly map, (H, W) float. Where it is NaN, the picture is
      hatched.
    scale: The model's colour scale.

  Returns:
    The picture, (H, W, 3) uint8, in the colours of the colour bar.
  """
  grey = np.broadcast_to(np.uint8(128), (*anomaly_map.shape, 3))
  return overlay(grey, anomaly_map, scale.vmin, scale.vmax)


def contour(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
  """Draws the outline of a mask on an image, without covering what it holds.

  The line runs along the outside of the mask, or inside at the image's border.
  It is as wide as suits the image's size.

  Args:
    image: The image, (H, W, 3) uint8.
    mask: The mask, (H, W) bool.

  Returns:
    A copy of the image with the outline, (H, W, 3) uint8.
  """
  result = image.copy()
  if not mask.any():
    return result
  height, width = mask.shape
  line = max(1, round((height * width) ** 0.5 / 300))
  casing = max(1, line // 2)
  reach = line + casing
  rows, columns = (
    slice(max(0, found[0] - reach), found[-1] + reach + 1)
    for found in (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
  )
  inside = mask.copy()
  inside[:line] = inside[height - line :] = False
  inside[:, :line] = inside[:, width - line :] = False
  part, inside = mask[rows, columns], inside[rows, columns]
  near, far = _grown(part, line), _grown(part, reach)
  result[rows, columns][far & ~near] = CASING
  result[rows, columns][near & ~inside] = LINE
  return result


def _grown(mask: np.ndarray, margin: int) -> np.ndarray:
  """Returns a mask (H, W) that is wider by a margin on all sides."""
  grown = scipy.ndimage.maximum_filter(
    mask.view(np.uint8), size=2 * margin + 1, mode="constant"
  )
  return grown.view(bool)


def annotated_overlay(
  image: np.ndarray,
  anomaly_map: np.ndarray,
  scale: ColourScale,
  thresholds: Thresholds | None = None,
) -> np.ndarray:
  """Draws overlay, contour and colour bar of a single image.

  Args:
    image: The image at its own size, (H, W, 3) uint8.
    anomaly_map: The anomaly map, (H, W) or smaller, float, NaN where nothing
      was inspected.
    scale: The model's colour scale.
    thresholds: The thresholds; the pixels above that for pixels are outlined,
      and it is marked on the bar. None draws neither.

  Returns:
    The picture, (H + bar, W, 3) uint8, wider if the image is narrower than the
    bar.
  """
  anomaly_map = at_size(anomaly_map, image.shape[:2])
  picture = overlay(image, anomaly_map, scale.vmin, scale.vmax)
  if thresholds is None:
    return with_colour_bar(picture, scale)
  picture = contour(picture, thresholds.mask(anomaly_map))
  return with_colour_bar(picture, scale, thresholds.pixel)


def with_colour_bar(
  picture: np.ndarray, scale: ColourScale, threshold: float | None = None
) -> np.ndarray:
  """Puts the colour bar below a picture.

  Args:
    picture: The picture, (H, W, 3) uint8.
    scale: The colour scale that it was drawn with.
    threshold: A score to be marked on the bar, if any.

  Returns:
    The picture and the bar on white, (H + bar, W, 3) uint8. A picture narrower
    than 320 pixels is centred above the bar, which is as narrow at most.
  """
  height, width = picture.shape[:2]
  # A long, narrow picture does not get a bar that is larger than itself.
  length = int(np.clip(min(width, 3 * height), 320, 6000))
  bar = _colour_bar(length, scale.vmin, scale.vmax, threshold)
  gap = length // 80
  canvas = np.full(
    (height + gap + len(bar), max(width, length), 3), 255, np.uint8
  )
  for part, top in ((picture, 0), (bar, height + gap)):
    left = (canvas.shape[1] - part.shape[1]) // 2
    canvas[top : top + len(part), left : left + part.shape[1]] = part
  return canvas


@functools.lru_cache(maxsize=4)  # one for a folder of images of one size
def _colour_bar(
  length: int, vmin: float, vmax: float, threshold: float | None
) -> np.ndarray:
  """Draws a colour bar `length` pixels wide, (H, length, 3) uint8."""
  width, height = _BAR_INCHES
  top = 0.14 if threshold is not None else 0.0  # room for the mark
  figure = Figure((width, height + top), dpi=length / width, facecolor="white")
  box = (0.3, height - 0.14, width - 0.6, 0.1)
  draw_colour_bar(figure, box, vmin, vmax, threshold)
  canvas = FigureCanvasAgg(figure)
  canvas.draw()
  return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def draw_colour_bar(
  figure: Figure,
  box: tuple[float, float, float, float],
  vmin: float,
  vmax: float,
  threshold: float | None = None,
) -> None:
  """Draws a colour bar, in the colours that the maps have over mid-grey.

  Args:
    figure: The figure to draw into.
    box: Left and lower edge, width and height of the bar, in inches.
    vmin: Score of the coldest colour.
    vmax: Score of the hottest colour.
    threshold: A score to be marked, if any; one outside the scale is not.
  """
  width, height = figure.get_size_inches()
  left, bottom, across, up = box
  axes = figure.add_axes(
    (left / width, bottom / height, across / width, up / height)
  )
  colours = ListedColormap(_blend(np.asarray(COLOURS.colors), 0.5))
  mappable = ScalarMappable(_norm(vmin, vmax), colours)
  bar = figure.colorbar(
    mappable, axes, orientation="horizontal", extend="both", extendfrac=0.03
  )
  bar.outline.set_linewidth(0.5)
  bar.ax.tick_params(labelsize=8, width=0.5, length=2.5, pad=2)
  bar.set_label(UNIT, fontsize=9, labelpad=2)
  if threshold is not None and vmin <= threshold <= vmax:
    bar.ax.axvline(threshold, color="black", linewidth=1)
    bar.ax.annotate(
      f"threshold {threshold:.3g}",
      (threshold, 1),
      (0, 2),
      xycoords=("data", "axes fraction"),
      textcoords="offset points",
      ha="center",
      va="bottom",
      fontsize=8,
    )


def at_size(anomaly_map: np.ndarray, size: tuple[int, int]) -> np.ndarray:
  """Resizes an anomaly map bilinearly.

  Args:
    anomaly_map: The anomaly map, (h, w) float, NaN where nothing was inspected.
    size: Height and width of the result.

  Returns:
    The map, (H, W) float32, NaN where most of what a pixel is interpolated from
    is NaN. It is the given map if that has this size.
  """
  scores = np.asarray(anomaly_map, np.float32)
  if scores.shape == tuple(size):
    return scores
  unseen = np.isnan(scores)
  if not unseen.any():
    return _resized(scores, size)
  weight = _resized((~unseen).astype(np.float32), size)
  scores = _resized(np.where(unseen, np.float32(0), scores), size)
  return np.where(weight < 0.5, np.nan, scores / np.maximum(weight, 0.5))


def _resized(array: np.ndarray, size: tuple[int, int]) -> np.ndarray:
  height, width = size
  image = Image.fromarray(array)
  return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))


def _blend(heat: np.ndarray, grey: np.ndarray | float) -> np.ndarray:
  """Blends colours (..., 4), whose last channel is opacity, over grey."""
  opacity = heat[..., 3:]
  return opacity * heat[..., :3] + (1 - opacity) * grey


def _norm(vmin: float, vmax: float) -> Normalize:
  if not vmin < vmax:
    raise ValueError(f"A colour scale from {vmin} to {vmax} is empty.")
  return Normalize(vmin, vmax, clip=True)
