"""Generates textures, surfaces of no particular material, from a seed."""

from collections.abc import Callable

import numpy as np
from scipy import ndimage, spatial

Field = np.ndarray  # (S, S) float values of any range


def make_texture(rng: np.random.Generator, size: int) -> np.ndarray:
  """Draws a texture of one or two patterns, a palette, light and grain.

  Args:
    rng: Source of all random choices.
    size: Side of the texture in pixels, at least 32.

  Returns:
    The image, (size, size, 3) uint8, RGB.
  """
  pattern = _unit(_draw(rng, size))
  if rng.random() < 0.5:
    share = rng.uniform(0.2, 0.6)
    pattern = _unit((1 - share) * pattern + share * _unit(_draw(rng, size)))
  image = _coloured(pattern, rng)
  light = 1 + rng.uniform(0, 0.4) * (_unit(_clouds(rng, size, 2)) - 0.5)
  grain = rng.normal(0, rng.uniform(0, 0.04), image.shape)
  image = np.clip(image * light[..., None] + grain, 0, 1)
  return (255 * image + 0.5).astype(np.uint8)


def _draw(rng: np.random.Generator, size: int) -> Field:
  return _PATTERNS[rng.integers(len(_PATTERNS))](rng, size)


def _unit(field: Field) -> Field:
  low, high = field.min(), field.max()
  return (field - low) / max(high - low, 1e-6)


def _coloured(pattern: Field, rng: np.random.Generator) -> np.ndarray:
  """Colours a pattern (S, S) in [0, 1] by a palette of 2 to 4 colours."""
  count = rng.integers(2, 5)
  colours = rng.uniform(0.05, 0.95, (count, 3))
  if rng.random() < 0.4:  # metal, paper, concrete: nearly grey
    colours = 0.9 * colours.mean(axis=1, keepdims=True) + 0.1 * colours
  stops = np.linspace(0, 1, count)
  return np.stack(
    [np.interp(pattern, stops, colours[:, c]) for c in range(3)], axis=-1
  )


def _clouds(rng: np.random.Generator, size: int, coarsest: int = 0) -> Field:
  """Draws value noise of several octaves, of which the finer are weaker."""
  coarsest = coarsest or int(rng.integers(2, 24))
  roughness = rng.uniform(0.3, 0.9)
  field, weight, cells = np.zeros((size, size)), 1.0, coarsest
  while cells < size // 2:
    lattice = rng.normal(size=(cells + 3, cells + 3))
    octave = ndimage.zoom(lattice, (size + 2 * size / cells) / (cells + 3))
    field += weight * octave[:size, :size]
    weight *= roughness
    cells *= 2
  return field


def _coordinates(
  rng: np.random.Generator, size: int
) -> tuple[np.ndarray, np.ndarray]:
  """Returns rotated, slightly bent pixel coordinates in units of the side."""
  axis = np.arange(size) / size
  y, x = np.meshgrid(axis, axis, indexing="ij")
  angle = rng.uniform(0, np.pi)
  bend = rng.uniform(0, 0.08) * (rng.random() < 0.5)
  x = x + bend * _unit(_clouds(rng, size, 3))
  y = y + bend * _unit(_clouds(rng, size, 3))
  cos, sin = np.cos(angle), np.sin(angle)
  return cos * x + sin * y, cos * y - sin * x


def _stripes(rng: np.random.Generator, size: int) -> Field:
  x, _ = _coordinates(rng, size)
  wave = np.sin(2 * np.pi * rng.uniform(3, 40) * x)
  return np.tanh(rng.uniform(0.5, 6) * wave)


def _weave(rng: np.random.Generator, size: int) -> Field:
  x, y = _coordinates(rng, size)
  x, y = (rng.uniform(4, 30) * v for v in (x, y))
  over = (np.floor(x) + np.floor(y)) % 2
  thread = [np.abs(np.sin(np.pi * v)) ** rng.uniform(0.3, 2) for v in (x, y)]
  return np.where(over > 0, thread[0], 0.8 * thread[1])


def _cells(rng: np.random.Generator, size: int) -> Field:
  """Draws grains, cells or cracks, from the distances to scattered points."""
  x, y = _coordinates(rng, size)
  points = rng.uniform(-0.8, 1.8, (rng.integers(40, 1200), 2))
  pixels = np.stack([x, y], axis=-1).reshape(-1, 2)
  distances, nearest = spatial.KDTree(points).query(pixels, k=2)
  kind = rng.integers(3)
  if kind == 0:
    field = distances[:, 0]
  elif kind == 1:
    field = np.minimum(distances[:, 1] - distances[:, 0], 0.02)
  else:
    field = rng.random(len(points))[nearest[:, 0]]
  return field.reshape(size, size)


def _fibres(rng: np.random.Generator, size: int) -> Field:
  """Draws brushed metal, wood or hair, as noise smeared along a direction."""
  noise = rng.normal(size=(2 * size, 2 * size))
  across, along = rng.uniform(0.4, 1.5), rng.uniform(5, 40)
  smeared = ndimage.gaussian_filter(noise, (across, along), mode="wrap")
  turned = ndimage.rotate(
    smeared, rng.uniform(0, 180), reshape=False, order=1, mode="wrap"
  )
  start = size // 2
  return turned[start : start + size, start : start + size]


def _things(rng: np.random.Generator, size: int) -> Field:
  """Draws scattered discs and bars, with soft or sharp edges."""
  x, y = _coordinates(rng, size)
  field = np.zeros((size, size))
  for _ in range(rng.integers(1, 30)):
    centre_x, centre_y = rng.uniform(-0.7, 1.4, 2)
    width, height = rng.uniform(0.02, 0.25, 2)
    power = rng.choice([2.0, 8.0])  # an ellipse, or nearly a rectangle
    outside = (np.abs((x - centre_x) / width) ** power) + (
      np.abs((y - centre_y) / height) ** power
    )
    edge = rng.uniform(2, 20)
    inside = 1 / (1 + np.exp(np.clip(edge * (outside - 1), -30, 30)))
    field = field * (1 - inside) + rng.random() * inside
  return field


_PATTERNS: tuple[Callable[[np.random.Generator, int], Field], ...] = (
  _clouds,
  _stripes,
  _weave,
  _cells,
  _fibres,
  _things,
)
