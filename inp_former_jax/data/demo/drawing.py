"""Drawing tools of the demo data set: shapes, noise and the camera.

Lengths are in units of 1/256 of the picture's width, so a part looks the same
at every image size; y points down. Radiance is display-referred float32 in
[0, 1].
"""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

WIDTH = 256.0
# Side of the central window in which all defects lie, so that a centre crop of
# 224 of 256 pixels keeps them.
WINDOW = 0.87 * WIDTH
_OVERSAMPLING = 3

# The strokes of each character as a sequence of points "xy" on a lattice two
# units wide and four units high, as in engraved or silk-screened lettering.
# This needs no font file and does not depend on the version of a font.
_GLYPHS = {
  "0": ["0020240400"],
  "1": ["011014", "0424"],
  "2": ["002022020424"],
  "3": ["0020240424", "0222"],
  "4": ["000222", "2024"],
  "5": ["200002222404"],
  "6": ["200004242202"],
  "7": ["002014"],
  "8": ["0020240400", "0222"],
  "A": ["0401102124", "0222"],
  "C": ["20000424"],
  "M": ["0400122024"],
  "R": ["04002022020224"],
  "U": ["00042420"],
}


def pixel_grid(image_size: int) -> tuple[np.ndarray, np.ndarray]:
  """Returns the x and y coordinates of the pixel centres, (H, W) each."""
  centres = (np.arange(image_size, dtype=np.float32) + 0.5) * (
    WIDTH / image_size
  )
  y, x = np.meshgrid(centres, centres, indexing="ij")
  return x, y


def window_depth(position: np.ndarray) -> np.ndarray:
  """Returns how far inside the window an x or y lies; negative outside."""
  return 0.5 * WINDOW - np.abs(position - 0.5 * WIDTH)


def smoothstep(low: float, high: float, value: np.ndarray) -> np.ndarray:
  """Returns 0 below `low`, 1 above `high` and a cubic between them."""
  t = np.clip((value - low) / (high - low), 0.0, 1.0)
  return t * t * (3.0 - 2.0 * t)


def mix(
  under: np.ndarray, over: np.ndarray | Sequence[float], coverage: np.ndarray
) -> np.ndarray:
  """Blends `over` onto `under` (H, W, 3) with the opacity `coverage` (H, W)."""
  mixed = np.asarray(over, np.float32) - under
  mixed *= coverage[..., None]
  mixed += under
  return mixed


def shifted(field: np.ndarray, dx: float, dy: float) -> np.ndarray:
  """Moves a (H, W) field by (dx, dy), rounded to pixels; repeats its edge."""
  height, width = field.shape
  scale = width / WIDTH
  rows = np.clip(np.arange(height) - round(dy * scale), 0, height - 1)
  columns = np.clip(np.arange(width) - round(dx * scale), 0, width - 1)
  return field[rows[:, None], columns]


def blurred(field: np.ndarray, sigma: float) -> np.ndarray:
  """Blurs a (H, W) field with a Gaussian of standard deviation `sigma`."""
  pixels = sigma * field.shape[1] / WIDTH
  return ndimage.gaussian_filter(field, pixels, truncate=2.5)


def smooth_noise(
  rng: np.random.Generator, image_size: int, cells: int
) -> np.ndarray:
  """Returns a (H, W) field of unit variance with `cells` bumps per side."""
  coarse = rng.standard_normal((cells + 2, cells + 2), dtype=np.float32)
  field = Image.fromarray(coarse).resize(
    (image_size, image_size), Image.Resampling.BICUBIC, (1, 1, cells, cells)
  )
  return np.asarray(field) * 1.4  # Interpolation halves the variance.


def blob_depth(
  x: np.ndarray,
  y: np.ndarray,
  radius: float,
  rng: np.random.Generator,
  roughness: float = 0.2,
) -> np.ndarray:
  """Returns how deep (x, y) lies in an irregular blob about the origin.

  Args:
    x: The x coordinates relative to the centre of the blob, (H, W).
    y: The y coordinates relative to the centre of the blob, (H, W).
    radius: The mean radius of the blob.
    rng: The generator that draws the outline.
    roughness: The standard deviation of the outline as a share of the radius.

  Returns:
    The depth, (H, W) float32, positive inside and zero on the outline.
  """
  waves = np.arange(2, 10)
  amplitude = rng.normal(size=waves.size) * roughness / (waves - 1.0) ** 1.4
  phase = rng.uniform(0, 2 * np.pi, waves.size)
  turn = np.linspace(-np.pi, np.pi, 257)
  outline = 1 + amplitude @ np.cos(waves[:, None] * turn + phase[:, None])
  angle = np.arctan2(y, x)
  rim = np.interp(angle, turn, radius * np.maximum(outline, 0.35))
  return (rim - np.hypot(x, y)).astype(np.float32)


def bezier(points: Sequence, count: int = 24) -> np.ndarray:
  """Returns `count` points (count, 2) of the Bezier curve of three points."""
  a, b, c = np.asarray(points, np.float64)
  t = np.linspace(0, 1, count)[:, None]
  return (1 - t) ** 2 * a + 2 * t * (1 - t) * b + t**2 * c


def lettering(text: str, height: float) -> list[np.ndarray]:
  """Returns the strokes of `text`, (n, 2) each, centred on the origin."""
  unit = height / 4.0
  advance = 3.2 * unit
  left = -0.5 * (advance * len(text) - 1.2 * unit)
  strokes = []
  for place, character in enumerate(text):
    for stroke in _GLYPHS[character]:
      lattice = np.array([int(digit) for digit in stroke], float).reshape(-1, 2)
      origin = (left + place * advance, -2.0 * unit)
      strokes.append(lattice * unit + origin)
  return strokes


class Canvas:
  """An anti-aliased layer, drawn enlarged and reduced by `coverage`."""

  def __init__(self, image_size: int):
    """Creates an empty layer of `image_size` x `image_size` pixels."""
    side = image_size * _OVERSAMPLING
    self._image = Image.new("L", (side, side))
    self._draw = ImageDraw.Draw(self._image)
    self._scale = side / WIDTH

  def line(self, points: np.ndarray, width: float) -> None:
    """Draws a polyline (n, 2) with round ends."""
    points = np.asarray(points, float)
    thickness = max(1, round(width * self._scale))
    flat = (points * self._scale - 0.5).ravel().tolist()
    self._draw.line(flat, 255, thickness, joint="curve")
    if thickness > 2:
      for end in (points[0], points[-1]):
        self.disc(end, 0.5 * width)

  def polygon(self, points: np.ndarray, fill: float = 1.0) -> None:
    """Fills a polygon (n, 2) with a level in [0, 1]."""
    flat = (np.asarray(points) * self._scale - 0.5).ravel().tolist()
    self._draw.polygon(flat, round(255 * fill))

  def disc(self, centre: np.ndarray, radius: float, fill: float = 1.0) -> None:
    """Fills a disc with a level in [0, 1]."""
    x, y = np.asarray(centre) * self._scale - 0.5
    r = radius * self._scale
    self._draw.ellipse((x - r, y - r, x + r, y + r), round(255 * fill))

  def coverage(self) -> np.ndarray:
    """Returns the coverage of the layer, (H, W) float32 in [0, 1]."""
    reduced = self._image.reduce(_OVERSAMPLING)
    return np.asarray(reduced, np.float32) / 255.0


def photograph(
  image_size: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
  """Draws the lighting and the noise of a picture at random.

  Args:
    image_size: The side of the picture in pixels.
    rng: The generator that draws them.

  Returns:
    The gain and the noise, (H, W, 3) each. A picture is `gain * radiance +
    noise`, pixel by pixel, so that a defect cannot change what lies outside it.
  """
  x, y = pixel_grid(image_size)
  x, y = (2.0 * x - WIDTH) / WIDTH, (2.0 * y - WIDTH) / WIDTH
  slope = rng.normal(0.0, 0.035, 2).astype(np.float32)
  vignette = 1.0 - 0.05 * (x * x + y * y)
  light = rng.normal(1.0, 0.02) * vignette + slope[0] * x + slope[1] * y
  tint = rng.normal(1.0, 0.008, 3).astype(np.float32)
  noise = rng.standard_normal((image_size, image_size, 3), dtype=np.float32)
  return light[..., None] * tint, noise * np.float32(rng.uniform(0.008, 0.013))
