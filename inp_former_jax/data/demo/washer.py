"""Draws a turned steel washer on dark felt and its defects."""

import dataclasses

import numpy as np
from scipy import ndimage

from inp_former_jax.data.demo import drawing

_INNER, _OUTER, _CHAMFER = 43.0, 101.0, 4.5
_RINGS = 512  # The number of radii at which the tool marks are tabulated.
_SECTORS = 48  # The number of angles at which the tool marks are tabulated.


@dataclasses.dataclass(frozen=True)
class Washer:
  """A washer in a picture.

  Attributes:
    radiance: The radiance that the camera sees, (H, W, 3).
    x: The x coordinate of each pixel from the centre of the washer, (H, W).
    y: The y coordinate of each pixel from the centre of the washer, (H, W).
    felt: The background with the shadow of the washer, (H, W, 3).
    tool_marks: The brightness of the tool marks on the turned face,
      (rings, sectors).
    light: The direction from which the light comes, in radians.
    turn: The rotation of the washer in radians.
    steel: The colour of the steel, (3,).
  """

  radiance: np.ndarray
  x: np.ndarray
  y: np.ndarray
  felt: np.ndarray
  tool_marks: np.ndarray
  light: float
  turn: float
  steel: np.ndarray

  @property
  def image_size(self) -> int:
    """Side length of the picture in pixels."""
    return self.x.shape[0]


def make_part(image_size: int, rng: np.random.Generator) -> Washer:
  """Makes a good washer and places it under the camera."""
  x, y = drawing.pixel_grid(image_size)
  centre = 128.0 + rng.normal(0.0, 2.5, 2)
  x, y = x - np.float32(centre[0]), y - np.float32(centre[1])
  light = -2.2 + rng.normal(0.0, 0.12)
  washer = Washer(
    radiance=np.zeros(0),
    x=x,
    y=y,
    felt=_felt(x, y, light, rng),
    tool_marks=_tool_marks(rng),
    light=light,
    turn=rng.uniform(0.0, 2.0 * np.pi),
    steel=np.array([1.0, 1.0, 1.01]) * rng.normal(1.0, 0.008, 3),
  )
  steel = _face(washer, x, y) * (1.0 - _stamp(washer))
  steel += 0.3 * drawing.shifted(_stamp(washer), 0.9, 0.9) * (steel > 0.2)
  radiance = drawing.mix(
    washer.felt, steel[..., None] * washer.steel, _coverage(x, y)
  )
  return dataclasses.replace(washer, radiance=radiance.astype(np.float32))


def _coverage(x: np.ndarray, y: np.ndarray) -> np.ndarray:
  """Returns the share of each pixel that is metal, (H, W)."""
  radius = np.hypot(x, y)
  pixel = drawing.WIDTH / x.shape[0]
  outside = np.maximum(radius - _OUTER, _INNER - radius)
  return np.clip(0.5 - outside / pixel, 0.0, 1.0)


def _felt(
  x: np.ndarray, y: np.ndarray, light: float, rng: np.random.Generator
) -> np.ndarray:
  """Draws dark felt with crossing fibres and the soft shadow of the washer."""
  shape = x.shape
  fibres = sum(
    ndimage.gaussian_filter(
      rng.standard_normal(shape, dtype=np.float32), sigma, truncate=2.0
    )
    for sigma in ((0.6, 2.2), (2.2, 0.6))
  )
  cloudy = drawing.smooth_noise(rng, shape[0], 6)
  level = 0.15 + 0.035 * fibres + 0.006 * cloudy
  x, y = x + 5.0 * np.cos(light), y + 5.0 * np.sin(light)
  radius = np.hypot(x, y)
  outside = np.maximum(radius - _OUTER, _INNER - radius)
  level = level * (0.45 + 0.55 * drawing.smoothstep(-4.0, 7.0, outside))
  return (level[..., None] * (0.98, 1.0, 1.06)).astype(np.float32)


def _tool_marks(rng: np.random.Generator) -> np.ndarray:
  """Draws the rings left by the lathe, which vary a little with the angle."""
  rings = rng.standard_normal((_RINGS, 1))
  rings += ndimage.gaussian_filter1d(rng.normal(0, 4, (_RINGS, 1)), 5, axis=0)
  streaks = ndimage.gaussian_filter1d(
    rng.standard_normal((_RINGS, _SECTORS)), 2.0, axis=1, mode="wrap"
  )
  marks = rings + 2.0 * streaks
  return ndimage.gaussian_filter1d(marks, 1.0, axis=0).astype(np.float32)


def _face(washer: Washer, x: np.ndarray, y: np.ndarray) -> np.ndarray:
  """Returns the brightness of the metal at (x, y) from its centre, (H, W).

  Grooves reflect like hair: they are brightest where they run across the light.
  This gives turned metal its bow-tie highlight, which does not move when the
  part rotates.
  """
  radius, angle = np.hypot(x, y), np.arctan2(y, x)
  ring = (radius - _INNER) * ((_RINGS - 1) / (_OUTER - _INNER))
  sector = ((angle + washer.turn) / (2.0 * np.pi) % 1.0) * _SECTORS
  marks = ndimage.map_coordinates(
    washer.tool_marks, (ring, sector), order=1, mode="grid-wrap"
  )
  across = angle - washer.light + 0.06 * marks
  main = np.exp(-((np.sin(across) / 0.36) ** 2))
  second = np.exp(-((np.sin(across - 1.25) / 0.22) ** 2))
  face = 0.43 + 0.36 * main + 0.11 * second + 0.028 * marks
  facing = np.cos(angle - washer.light)
  outer = drawing.smoothstep(-_CHAMFER - 0.8, -_CHAMFER + 0.8, radius - _OUTER)
  inner = drawing.smoothstep(-_CHAMFER - 0.8, -_CHAMFER + 0.8, _INNER - radius)
  face += outer * (0.46 + 0.34 * facing - face)
  return face + inner * (0.40 - 0.30 * facing - face)


def _stamp(washer: Washer) -> np.ndarray:
  """Draws the depth (H, W) of the size stamped into the face along an arc."""
  canvas = drawing.Canvas(washer.image_size)
  middle = 0.5 * (_INNER + _OUTER)
  # The grid starts half a pixel inside the picture.
  half = 0.5 * drawing.WIDTH / washer.image_size
  centre = half - np.array([washer.x[0, 0], washer.y[0, 0]])
  for stroke in drawing.lettering("M24", 13.0):
    angle = stroke[:, 0] / middle - washer.turn
    radius = middle - stroke[:, 1]
    ring = np.stack([np.cos(angle), np.sin(angle)], 1) * radius[:, None]
    canvas.line(ring + centre, 1.5)
  return 0.5 * canvas.coverage()


def _metal(washer: Washer, level: np.ndarray) -> np.ndarray:
  return level[..., None] * washer.steel.astype(np.float32)


def _spot(rng: np.random.Generator, margin: float) -> np.ndarray:
  """Draws a point (2,) on the face at least `margin` from either rim."""
  radius = rng.uniform(_INNER + _CHAMFER + margin, _OUTER - _CHAMFER - margin)
  angle = rng.uniform(0.0, 2.0 * np.pi)
  return radius * np.array([np.cos(angle), np.sin(angle)])


def _scratch(
  washer: Washer, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
  """Draws one to three parallel grooves, dark inside and bright on one lip."""
  half = 0.5 * drawing.WIDTH / washer.image_size
  origin = half - np.array([washer.x[0, 0], washer.y[0, 0]])
  start = _spot(rng, 6.0)
  outward = np.arctan2(start[1], start[0])
  # Never along the tool marks, where it would look like one of them.
  heading = outward + rng.choice([-1, 1]) * rng.uniform(0.2, 1.1) + np.pi
  along = np.array([np.cos(heading), np.sin(heading)])
  normal = np.array([-along[1], along[0]])
  length, width = rng.uniform(45.0, 95.0), rng.uniform(1.9, 3.3)
  bend = rng.normal(0.0, 0.08) * length
  groove, lip = (drawing.Canvas(washer.image_size) for _ in range(2))
  for lane in range(rng.integers(1, 4)):
    offset = start + lane * (width + 2.0) * normal + rng.normal(0, 3) * along
    middle = offset + 0.5 * length * along + bend * normal
    curve = drawing.bezier([offset, middle, offset + length * along]) + origin
    for first in range(0, 22):  # The groove thins out towards its end.
      thin = width * (1.0 - 0.5 * (first / 21.0) ** 2)
      groove.line(curve[first : first + 3], thin)
      lip.line(curve[first : first + 3] + 0.6 * thin * normal, 0.7 * thin)
    length *= rng.uniform(0.4, 0.8)
  metal = drawing.smoothstep(0.5, 1.0, _coverage(washer.x, washer.y))
  groove, lip = groove.coverage() * metal, lip.coverage() * metal
  rough = 0.12 * drawing.smooth_noise(rng, washer.image_size, 64)
  depth = groove * np.clip(rng.uniform(0.42, 0.65) + rough, 0.2, 0.9)
  radiance = washer.radiance * (1.0 - depth[..., None])
  bright = lip * (1.0 - groove) * (rng.uniform(0.25, 0.4) + rough)
  return radiance + _metal(washer, bright), np.maximum(groove, lip)


def _dent(
  washer: Washer, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
  """Draws a smooth hollow that bends the tool marks and catches the light."""
  centre = _spot(rng, 8.0)
  radius, stretch = rng.uniform(9.0, 15.0), rng.uniform(0.7, 1.0)
  turn = rng.uniform(0, np.pi)
  dx, dy = washer.x - centre[0], washer.y - centre[1]
  along = np.cos(turn) * dx + np.sin(turn) * dy
  across = (np.cos(turn) * dy - np.sin(turn) * dx) / stretch
  uneven = 1.0 + 0.09 * drawing.smooth_noise(rng, washer.image_size, 14)
  distance = np.hypot(along, across) / radius * uneven
  hollow = np.clip(1.0 - distance**2, 0.0, 1.0) ** 2
  # The wall is steepest at 0.45 of the radius and faces away from the light.
  wall = 3.5 * hollow**0.5 * distance
  towards = (np.cos(washer.light) * dx + np.sin(washer.light) * dy) / (
    np.hypot(dx, dy) + 1e-3
  )
  bent = hollow * rng.uniform(0.15, 0.3)
  level = _face(washer, washer.x - bent * dx, washer.y - bent * dy)
  level = level * (1.0 - 0.22 * hollow) - 0.26 * wall * towards
  rim = np.exp(-(((distance - 0.92) / 0.09) ** 2))
  level = np.clip(level + 0.10 * rim, 0.06, 0.97)
  coverage = drawing.smoothstep(1.1, 0.98, distance)
  coverage = coverage * _coverage(washer.x, washer.y)
  painted = drawing.mix(washer.radiance, _metal(washer, level), coverage)
  return painted, coverage


def _chip(
  washer: Washer, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
  """Draws a piece broken out of a rim, with felt and a glinting fracture."""
  angle = rng.uniform(0.0, 2.0 * np.pi)
  rim = _OUTER if rng.random() < 0.7 else _INNER
  radius = rng.uniform(9.0, 17.0)
  direction = np.array([np.cos(angle), np.sin(angle)])
  centre = direction * (rim + (3.0 if rim == _OUTER else -3.0))
  dx, dy = washer.x - centre[0], washer.y - centre[1]
  depth = drawing.blob_depth(dx, dy, radius, rng, 0.2)
  depth = depth + 0.9 * drawing.smooth_noise(rng, washer.image_size, 48)
  metal = _coverage(washer.x, washer.y)
  gone = np.clip(0.5 + depth, 0.0, 1.0)
  fracture = drawing.smoothstep(-3.2, -2.2, depth)
  grain = rng.standard_normal(metal.shape, dtype=np.float32)
  grain = ndimage.gaussian_filter(grain, 0.8, truncate=2.0)
  # The broken face looks into the gap, so the side far from the light is lit.
  facing = -(np.cos(washer.light) * dx + np.sin(washer.light) * dy) / radius
  level = np.clip(0.36 + 0.30 * facing + 0.22 * grain, 0.08, 0.95)
  radiance = drawing.mix(
    washer.radiance, _metal(washer, level), fracture * metal
  )
  # The shadow that the felt had under the metal also suits the gap.
  radiance = drawing.mix(radiance, washer.felt, gone * metal)
  return radiance, fracture * metal


def _rust(
  washer: Washer, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
  """Draws ragged rust with satellites, through which tool marks are faint."""
  centre = _spot(rng, 8.0)
  dx, dy = washer.x - centre[0], washer.y - centre[1]
  radius = rng.uniform(12.0, 22.0)
  depth = drawing.blob_depth(dx, dy, radius, rng, 0.22)
  coarse = drawing.smooth_noise(rng, washer.image_size, 40)
  fine = drawing.smooth_noise(rng, washer.image_size, 110)
  ragged = depth + 3.0 * coarse + 1.3 * fine
  ragged = np.where(depth > -8.0, ragged, -8.0)
  metal = _coverage(washer.x, washer.y)
  coverage = drawing.smoothstep(-0.5, 2.5, ragged) * metal
  thick = drawing.smoothstep(1.0, 10.0, ragged + 2.5 * fine)
  light_rust = np.array([0.62, 0.36, 0.17], np.float32)
  dark_rust = np.array([0.30, 0.15, 0.08], np.float32)
  colour = light_rust + thick[..., None] * (dark_rust - light_rust)
  colour = colour * (0.95 + 0.12 * fine[..., None])
  shine = washer.radiance.mean(-1, keepdims=True)
  colour = colour * (0.65 + 0.55 * shine)
  strength = rng.uniform(0.7, 0.95)
  painted = drawing.mix(washer.radiance, colour, strength * coverage)
  return painted, coverage


DEFECTS = {
  "scratch": _scratch,
  "dent": _dent,
  "chip": _chip,
  "rust": _rust,
}
