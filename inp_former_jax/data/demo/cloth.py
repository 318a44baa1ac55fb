"""Draws a plain-woven cloth on a dark table and its defects."""

import dataclasses

import numpy as np

from inp_former_jax.data.demo import drawing

_PERIOD = 9.0  # The distance from thread to thread.
_COUNT = 64  # Tabulated threads per direction, more than any picture shows.
_WARP = np.array([0.34, 0.44, 0.58], np.float32)
_WEFT = np.array([0.80, 0.78, 0.72], np.float32)
_TABLE = np.array([0.05, 0.05, 0.055], np.float32)


@dataclasses.dataclass(frozen=True)
class Thread:
  """The threads of one of the two directions, described at every pixel.

  Attributes:
    index: The thread to which each pixel belongs, (H, W).
    across: The position across the thread, from -1 to 1 on the thread and
      beyond that in the gap, (H, W).
    along: The position along the thread in periods of the crossing threads,
      (H, W).
    level: The brightness of the yarn, (H, W).
    coverage: The share of each pixel that the thread alone covers, (H, W).
  """

  index: np.ndarray
  across: np.ndarray
  along: np.ndarray
  level: np.ndarray
  coverage: np.ndarray


@dataclasses.dataclass(frozen=True)
class Cloth:
  """A piece of cloth in a picture.

  Attributes:
    radiance: The radiance that the camera sees, (H, W, 3).
    x: The x coordinate of each pixel in the picture, (H, W).
    y: The y coordinate of each pixel in the picture, (H, W).
    warp: The threads that run down.
    weft: The threads that run across.
  """

  radiance: np.ndarray
  x: np.ndarray
  y: np.ndarray
  warp: Thread
  weft: Thread

  @property
  def image_size(self) -> int:
    """Side length of the picture in pixels."""
    return self.x.shape[0]


def make_part(image_size: int, rng: np.random.Generator) -> Cloth:
  """Makes a good cloth and places it nearly straight under the camera."""
  x, y = drawing.pixel_grid(image_size)
  turn = rng.normal(0.0, 0.02)
  u = (np.cos(turn) * x + np.sin(turn) * y) / _PERIOD + rng.uniform(8, 9)
  v = (np.cos(turn) * y - np.sin(turn) * x) / _PERIOD + rng.uniform(8, 9)
  u = u + 0.12 * drawing.smooth_noise(rng, image_size, 4)
  v = v + 0.12 * drawing.smooth_noise(rng, image_size, 4)
  u, v = u.astype(np.float32), v.astype(np.float32)
  warp, weft = _spin(u, v, rng), _spin(v, u, rng)
  cloth = Cloth(np.zeros(0), x, y, warp, weft)
  return dataclasses.replace(cloth, radiance=_weave(cloth))


def _spin(
  position: np.ndarray, along: np.ndarray, rng: np.random.Generator
) -> Thread:
  """Makes uneven, twisted and hairy threads at the integers of `position`."""
  image_size = position.shape[0]
  thickness = rng.normal(0.88, 0.025, _COUNT).astype(np.float32)
  brightness = rng.normal(1.0, 0.035, _COUNT).astype(np.float32)
  wander = rng.normal(0.0, 0.03, _COUNT).astype(np.float32)
  index = np.floor(position).astype(np.int32) % _COUNT
  uneven = drawing.smooth_noise(rng, image_size, 36)
  width = thickness[index] + 0.035 * uneven
  across = 2.0 * (position % 1.0 - 0.5 + wander[index]) / width
  pixels = 0.5 * _PERIOD * width * image_size / drawing.WIDTH
  coverage = np.clip((1.0 - np.abs(across)) * pixels + 0.5, 0.0, 1.0)
  # The plies run diagonally in the yarn.
  twist = np.sin(2.0 * np.pi * (2.6 * along + 0.55 * across + wander[index]))
  fuzz = drawing.smooth_noise(rng, image_size, 128)
  level = brightness[index] * (1.0 + 0.055 * twist + 0.04 * fuzz)
  return Thread(index, across, along, level, coverage)


def _weave(
  cloth: Cloth,
  keep_warp: np.ndarray | float = 1.0,
  keep_weft: np.ndarray | float = 1.0,
) -> np.ndarray:
  """Draws warp and weft passing over and under each other.

  Args:
    cloth: The cloth whose threads to draw.
    keep_warp: The share of the warp to keep at each pixel, (H, W) or a scalar.
    keep_weft: The share of the weft to keep at each pixel, (H, W) or a scalar.

  Returns:
    The radiance, (H, W, 3) float32.
  """
  warp, weft = cloth.warp, cloth.weft
  over_warp = (1 - 2 * (warp.index % 2)) * np.cos(np.pi * (warp.along - 0.5))
  over_weft = (2 * (weft.index % 2) - 1) * np.cos(np.pi * (weft.along - 0.5))
  # A thread lies flat where the thread that it should cross is gone.
  over_warp = over_warp * (0.3 + 0.7 * keep_weft)
  over_weft = over_weft * (0.3 + 0.7 * keep_warp)
  round_warp = np.sqrt(np.clip(1.0 - warp.across**2, 0.0, 1.0))
  round_weft = np.sqrt(np.clip(1.0 - weft.across**2, 0.0, 1.0))
  height_warp = 0.5 * round_warp + 0.5 * over_warp
  height_weft = 0.5 * round_weft + 0.5 * over_weft
  on_top = np.clip(0.5 + 2.5 * (height_warp - height_weft), 0.0, 1.0)
  has_warp = warp.coverage * keep_warp
  has_weft = weft.coverage * keep_weft
  share_warp = has_warp * (on_top + (1.0 - on_top) * (1.0 - has_weft))
  share_weft = has_weft * (1.0 - on_top * has_warp)
  # The light comes from the upper left. A thread that dips under another lies
  # in its shade.
  shade_warp = (0.50 + 0.34 * round_warp - 0.17 * warp.across) * (
    0.80 + 0.26 * over_warp
  )
  shade_weft = (0.50 + 0.34 * round_weft - 0.22 * weft.across) * (
    0.80 + 0.26 * over_weft
  )
  layers = np.stack(
    [
      share_warp * shade_warp * warp.level,
      share_weft * shade_weft * weft.level,
      (1.0 - has_warp) * (1.0 - has_weft),
    ],
    axis=-1,
  )
  radiance = layers @ np.stack([_WARP, _WEFT, _TABLE])
  return radiance.astype(np.float32)


def _spot(rng: np.random.Generator, margin: float) -> np.ndarray:
  return rng.uniform(margin, drawing.WIDTH - margin, 2)


def _ragged_ends(
  thread: Thread, rng: np.random.Generator, spread: float
) -> np.ndarray:
  """Returns how far the torn end of each pixel's thread sticks out, (H, W)."""
  return rng.normal(0.0, spread, _COUNT).astype(np.float32)[thread.index]


def _loose_fibres(
  cloth: Cloth,
  rng: np.random.Generator,
  dx: np.ndarray,
  dy: np.ndarray,
  depth: np.ndarray,
) -> np.ndarray:
  """Draws the fibres that curl from the rim of a tear into the hole.

  Args:
    cloth: The torn cloth.
    rng: The generator that draws the fibres.
    dx: The x distance of each pixel from the centre of the hole, (H, W).
    dy: The y distance of each pixel from the centre of the hole, (H, W).
    depth: Depth of each pixel inside the hole, (H, W).

  Returns:
    The coverage of the fibres, (H, W).
  """
  canvas = drawing.Canvas(cloth.image_size)
  pixel = drawing.WIDTH / cloth.image_size
  rim = np.flatnonzero(np.abs(depth) < max(1.5, pixel))
  for place in rng.choice(rim, 14):
    root = np.array([cloth.x.flat[place], cloth.y.flat[place]])
    inward = -np.array([dx.flat[place], dy.flat[place]])
    inward /= np.hypot(*inward) + 1e-3
    reach = rng.uniform(4.0, 9.0)
    bend = root + reach * inward + rng.normal(0.0, 2.0, 2)
    tip = bend + rng.normal(0.0, 4.0, 2)
    canvas.line(drawing.bezier([root, bend, tip], 8), rng.uniform(0.5, 1.1))
  return canvas.coverage()


def _hole(
  cloth: Cloth, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
  """Draws a hole that shows the table between threads of different lengths."""
  centre = _spot(rng, 40.0)
  dx, dy = cloth.x - centre[0], cloth.y - centre[1]
  depth = drawing.blob_depth(dx, dy, rng.uniform(13.0, 24.0), rng, 0.18)
  left_warp = drawing.smoothstep(
    1.0, -1.0, depth - 2.0 + _ragged_ends(cloth.warp, rng, 3.2)
  )
  left_weft = drawing.smoothstep(
    1.0, -1.0, depth - 2.0 + _ragged_ends(cloth.weft, rng, 4.0)
  )
  near = drawing.smoothstep(-7.0, -5.0, depth)
  left_warp = 1.0 - (1.0 - left_warp) * near
  left_weft = 1.0 - (1.0 - left_weft) * near
  fibres = _loose_fibres(cloth, rng, dx, dy, depth)
  gone = np.maximum(1.0 - left_warp, 1.0 - left_weft)
  both = (1.0 - left_warp) * (1.0 - left_weft)
  radiance = _weave(cloth, left_warp, left_weft)
  radiance = radiance * (1.0 - 0.25 * gone[..., None])
  radiance = drawing.mix(radiance, 0.55 * _WEFT, 0.6 * fibres * both)
  return radiance, gone


def _missing_thread(
  cloth: Cloth, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
  """Draws a thread missing over part of the window or all of it."""
  thread = cloth.warp if rng.random() < 0.5 else cloth.weft
  middle = cloth.image_size // 2
  row, column = np.clip(
    (_spot(rng, 40.0) * cloth.image_size / drawing.WIDTH).astype(int),
    0,
    2 * middle - 1,
  )
  length = rng.uniform(7.0, 26.0)
  from_end = 0.5 * length - np.abs(thread.along - thread.along[row, column])
  position = cloth.y if thread is cloth.warp else cloth.x
  from_window = (drawing.window_depth(position) - 1.0) / _PERIOD
  from_end = np.minimum(from_end, from_window)
  which = thread.index == thread.index[row, column]
  gone = which * drawing.smoothstep(-0.08, 0.08, from_end) * thread.coverage
  keep = 1.0 - gone
  if thread is cloth.warp:
    return _weave(cloth, keep_warp=keep), gone
  return _weave(cloth, keep_weft=keep), gone


def _knot(
  cloth: Cloth, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
  """Draws a knot of yarn on the cloth with two loose tails and a shadow."""
  centre = _spot(rng, 36.0)
  turn = rng.uniform(0.0, np.pi)
  dx, dy = cloth.x - centre[0], cloth.y - centre[1]
  along = np.cos(turn) * dx + np.sin(turn) * dy
  across = np.cos(turn) * dy - np.sin(turn) * dx
  length, width = rng.uniform(9.0, 14.0), rng.uniform(6.0, 8.5)
  distance = drawing.blob_depth(along / length, across / width, 1.0, rng, 0.08)
  body = np.clip(0.5 + distance * width, 0.0, 1.0)
  tails = drawing.Canvas(cloth.image_size)
  for side in (-1.0, 1.0):
    heading = turn + rng.normal(0.0, 0.5)
    reach = side * np.array([np.cos(heading), np.sin(heading)])
    tip = centre + rng.uniform(18.0, 30.0) * reach + rng.normal(0, 5, 2)
    bend = centre + 12.0 * reach + rng.normal(0, 4, 2)
    tails.line(drawing.bezier([centre, bend, tip]), rng.uniform(2.6, 3.8))
  tails = tails.coverage()
  shape = np.maximum(body, tails)
  shadow = drawing.blurred(drawing.shifted(shape, 2.5, 3.0), 1.2)
  shadow = shadow * (shadow > 0.12)
  yarn = _WEFT if rng.random() < 0.5 else 1.15 * _WARP
  bulge = np.sqrt(np.clip(distance, 0.0, 1.0))
  lit = 0.55 + 0.42 * bulge - 0.16 * (dx + dy) / length
  windings = np.sin(2.0 * np.pi * (0.22 * along + 0.10 * across + bulge))
  level = lit * (1.0 + 0.13 * windings)
  ridge = np.clip(tails - drawing.shifted(tails, 1.0, 1.0), 0.0, 1.0)
  level = np.where(body > 0.5, level, 0.72 + 0.3 * ridge)
  radiance = cloth.radiance * (1.0 - 0.6 * shadow[..., None])
  level = np.clip(level, 0.1, 1.2)[..., None] * yarn
  return drawing.mix(radiance, level, shape), np.maximum(shape, shadow)


def _stain(
  cloth: Cloth, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
  """Draws a spill that ran along the threads and dried darker at its edge."""
  centre = _spot(rng, 46.0)
  dx, dy = cloth.x - centre[0], cloth.y - centre[1]
  depth = drawing.blob_depth(dx, dy, rng.uniform(15.0, 27.0), rng, 0.18)
  wick = np.where(
    np.abs(dx) > np.abs(dy),
    _ragged_ends(cloth.weft, rng, 1.6),
    _ragged_ends(cloth.warp, rng, 1.6),
  )
  depth = depth + wick + drawing.smooth_noise(rng, cloth.image_size, 24)
  wet = drawing.smoothstep(-0.6, 2.0, depth)
  edge = wet * drawing.smoothstep(7.0, 1.5, depth)
  dyes = ((0.72, 0.48, 0.26), (0.50, 0.50, 0.52), (0.45, 0.56, 0.75))
  dye = np.array(dyes[rng.integers(len(dyes))], np.float32)
  strength = rng.uniform(0.55, 0.9) * (0.65 * wet + 0.35 * edge)
  passed = 1.0 - strength[..., None] * (1.0 - dye)
  return cloth.radiance * passed, wet


DEFECTS = {
  "hole": _hole,
  "missing_thread": _missing_thread,
  "knot": _knot,
  "stain": _stain,
}
