"""Draws a populated printed circuit board and its defects."""

import dataclasses

import numpy as np

from inp_former_jax.data.demo import board_layout as layout
from inp_former_jax.data.demo import drawing

_MASK = np.array([0.05, 0.27, 0.17], np.float32)
_TRACE = np.array([0.10, 0.40, 0.25], np.float32)
_TIN = np.array([0.70, 0.70, 0.68], np.float32)
_STEEL = np.array([0.80, 0.80, 0.82], np.float32)
_EPOXY = np.array([0.115, 0.115, 0.125], np.float32)
_CERAMIC = np.array([0.56, 0.44, 0.31], np.float32)
_INK = np.array([0.86, 0.88, 0.85], np.float32)
_COPPER = np.array([0.80, 0.50, 0.30], np.float32)
_GLUE = np.array([0.60, 0.13, 0.09], np.float32)
_FIBREGLASS = np.array([0.62, 0.58, 0.40], np.float32)


@dataclasses.dataclass(frozen=True)
class Board:
  """A board in a picture.

  Attributes:
    radiance: The radiance that the camera sees, (H, W, 3).
    x: The x coordinate of each pixel in the picture, (H, W).
    y: The y coordinate of each pixel in the picture, (H, W).
    frame: The position of the board under the camera, see `layout.place`.
    poses: The error of placement of each component in x, y and angle,
      (components, 3).
    solder_mask: The radiance of the bare board, (H, W, 3).
    copper: The coverage of the traces, (H, W).
    layers: The coverage of each layer on the board, (layers, H, W), see
      `_populate`.
  """

  radiance: np.ndarray
  x: np.ndarray
  y: np.ndarray
  frame: tuple[float, float, float]
  poses: np.ndarray
  solder_mask: np.ndarray
  copper: np.ndarray
  layers: np.ndarray

  @property
  def image_size(self) -> int:
    """Side length of the picture in pixels."""
    return self.x.shape[0]


def make_part(image_size: int, rng: np.random.Generator) -> Board:
  """Makes a good board and places it under the camera."""
  x, y = drawing.pixel_grid(image_size)
  frame = (*rng.normal(0.0, 1.3, 2), rng.normal(0.0, 0.009))
  jitter = rng.normal(0.0, 1.0, (len(layout.COMPONENTS), 3)) * (0.5, 0.5, 0.015)
  copper = _draw_traces(image_size, frame)
  edge = drawing.shifted(copper, 1.0, 1.0) - drawing.shifted(copper, -1.0, -1.0)
  mottle = drawing.smooth_noise(rng, image_size, 9)
  bare = np.tile(_MASK * np.float32(rng.normal(1.0, 0.03)), (*x.shape, 1))
  solder_mask = drawing.mix(bare, _TRACE, 0.8 * copper)
  lit = 1.0 + 0.025 * mottle - 0.22 * edge
  board = Board(
    radiance=np.zeros(0),
    x=x,
    y=y,
    frame=frame,
    poses=jitter,
    solder_mask=(solder_mask * lit[..., None]).astype(np.float32),
    copper=copper,
    layers=np.zeros(0),
  )
  radiance, layers = _populate(board)
  return dataclasses.replace(board, radiance=radiance, layers=layers)


def _draw_traces(image_size: int, frame: tuple) -> np.ndarray:
  canvas = drawing.Canvas(image_size)
  for start, end, bend in layout.TRACES:
    canvas.line(layout.place(layout.route(start, end, bend), frame), 3.6)
  for via in layout.VIAS:
    canvas.disc(layout.place([via], frame)[0], 6.0)
  return canvas.coverage()


def _draw_footprint(
  layers: dict[str, drawing.Canvas], component: layout.Component, frame: tuple
) -> None:
  """Draws a component's pads, outline and name on the bare board."""
  length, width = component.length, component.width
  size = (15.0, 6.6) if component.pins else (11.0, width + 2.0)
  for x, y in layout.terminals(component):
    pad = layout.box(component, (x, y, *size))
    layers["pads"].polygon(layout.place(pad, frame))
  if component.pins:
    at = (component.x - 8.0, component.y + 0.5 * width + 8.0)
    outline = layout.box(component, (0, 0, length - 4.0, width + 4.0))
  else:
    side = 0.5 * width + 8.0
    at = (component.x, component.y - side)
    if component.quarter_turns:
      at = (component.x + side + 1.0, component.y)
    outline = layout.box(component, (0, 0, length + 13.0, width + 5.0))
  outline = np.concatenate([outline, outline[:1]])
  layers["ink"].line(layout.place(outline, frame), 1.0)
  for stroke in drawing.lettering(component.label, 7.0):
    layers["ink"].line(layout.place(stroke + at, frame), 1.1)


def _draw_component(
  layers: dict[str, drawing.Canvas],
  component: layout.Component,
  pose: np.ndarray,
  frame: tuple,
) -> None:
  """Draws a component itself, displaced from its footprint by `pose`."""
  middle = np.array([component.x, component.y])

  def on_board(points: np.ndarray) -> np.ndarray:
    cos, sin = np.cos(pose[2]), np.sin(pose[2])
    turned = (points - middle) @ [[cos, sin], [-sin, cos]]
    return layout.place(turned + middle + pose[:2], frame)

  length, width = component.length, component.width
  body = "chips" if component.label[0] in "UR" else "ceramics"
  layers[body].polygon(on_board(layout.box(component, (0, 0, length, width))))
  if component.pins:
    for x, y in layout.terminals(component):
      pin = layout.box(component, (x - np.sign(x) * 1.5, y, 11.0, 4.4))
      layers["pins"].polygon(on_board(pin))
    dot = np.array([(-0.5 * length + 7.0, -0.5 * width + 7.0)])
    layers["marks"].disc(on_board(layout.turn(dot, component))[0], 2.6)
    text, height = ("8A4" if component.pins > 4 else "62C"), 8.0
  else:
    for x in (-0.5 * length + 2.5, 0.5 * length - 2.5):
      cap = layout.box(component, (x, 0.0, 5.0, width))
      layers["caps"].polygon(on_board(cap))
    text, height = ("103" if body == "chips" else ""), 6.0
  for stroke in drawing.lettering(text, height):
    layers["marks"].line(on_board(layout.turn(stroke, component)), 1.0)


def _slope(field: np.ndarray) -> np.ndarray:
  """Returns how much a soft relief (H, W) faces the light in the upper left."""
  return drawing.shifted(field, -0.8, -0.8) - drawing.shifted(field, 0.8, 0.8)


def _populate(
  board: Board, missing: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
  """Draws the components on the bare board.

  Args:
    board: The bare board and the poses of its components.
    missing: The index of a component to leave out; None draws all of them.

  Returns:
    The radiance, (H, W, 3), and the coverage of the layers above the bare
    board, including the shadow, (layers, H, W).
  """
  names = ("ink", "pads", "holes", "pins", "chips", "ceramics", "caps", "marks")
  canvases = {name: drawing.Canvas(board.image_size) for name in names}
  for via in layout.VIAS:
    at = layout.place([via], board.frame)[0]
    canvases["pads"].disc(at, 4.6)
    canvases["holes"].disc(at, 2.2)
  for number, component in enumerate(layout.COMPONENTS):
    _draw_footprint(canvases, component, board.frame)
    if number != missing:
      _draw_component(canvases, component, board.poses[number], board.frame)
  layer = {name: canvas.coverage() for name, canvas in canvases.items()}
  radiance = drawing.mix(board.solder_mask, _INK, 0.9 * layer["ink"])
  radiance = drawing.mix(radiance, _TIN, layer["pads"])
  solder = drawing.blurred(layer["pads"], 1.2)
  radiance += (0.55 * layer["pads"] * _slope(solder))[..., None]
  radiance = drawing.mix(radiance, 0.25 * _MASK, layer["holes"])
  tall = np.maximum(layer["chips"], 0.7 * layer["ceramics"])
  tall = np.maximum(tall, 0.35 * layer["pins"])
  shadow = drawing.blurred(drawing.shifted(tall, 3.0, 3.0), 1.3)
  radiance *= (1.0 - 0.6 * shadow)[..., None]
  for name, colour, shine in (
    ("pins", _STEEL, 0.35),
    ("chips", _EPOXY, 0.16),
    ("ceramics", _CERAMIC, 0.30),
    ("caps", _STEEL, 0.35),
  ):
    radiance = drawing.mix(radiance, colour, layer[name])
    radiance += (shine * layer[name] * _slope(layer[name]))[..., None]
  radiance = drawing.mix(radiance, 0.7 * _INK, 0.75 * layer["marks"])
  return radiance.astype(np.float32), np.stack([*layer.values(), shadow])


def _missing_component(
  board: Board, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
  """Draws a lost component: bare pads, torn glue and no shadow."""
  two_terminal = [
    i for i, part in enumerate(layout.COMPONENTS) if not part.pins
  ]
  number = rng.choice(two_terminal)
  radiance, layers = _populate(board, missing=number)
  component = layout.COMPONENTS[number]
  middle = np.array([(component.x, component.y)])
  centre = layout.place(middle, board.frame)[0] + rng.normal(0.0, 0.7, 2)
  dx, dy = board.x - centre[0], board.y - centre[1]
  depth = drawing.blob_depth(dx, dy, rng.uniform(7.0, 8.5), rng, 0.16)
  glue = np.clip(0.5 + depth, 0.0, 1.0)
  torn = 0.25 * drawing.smooth_noise(rng, board.image_size, 80)
  relief = _slope(drawing.blurred(glue * (1.0 + torn), 1.0))
  level = 1.0 + 0.9 * np.clip(relief, -0.7, 0.7) + torn
  radiance = drawing.mix(radiance, level[..., None] * _GLUE, 0.94 * glue)
  gone = np.abs(layers - board.layers).max(axis=0)
  return radiance, np.maximum(gone, glue)


def _solder_bridge(
  board: Board, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
  """Draws a bead of solder that joins two or three neighbouring pins."""
  chips = [i for i, part in enumerate(layout.COMPONENTS) if part.pins]
  number = rng.choice(chips, p=(0.6, 0.4))
  chip = layout.COMPONENTS[number]
  joined = int(rng.integers(2, 4))
  first = rng.integers(0, chip.pins - joined + 1)
  side = rng.choice((-1, 1))
  x = side * (0.5 * chip.length + 7.5 + rng.normal(0.0, 1.0))
  y = layout.PITCH * (first + 0.5 * (joined - 1) - 0.5 * (chip.pins - 1))
  centre = layout.place(layout.turn(np.array([(x, y)]), chip), board.frame)[0]
  dx, dy = board.x - centre[0], board.y - centre[1]
  half = 0.5 * layout.PITCH * (joined - 1)
  # Between the pins that it wets, solder becomes thin.
  waist = np.cos(2.0 * np.pi * (dy - half) / layout.PITCH)
  dy = dy - np.clip(dy, -half, half)
  depth = drawing.blob_depth(dx, dy, rng.uniform(5.0, 6.8), rng, 0.12)
  depth = depth - rng.uniform(0.1, 0.7) * (1.0 - waist)
  coverage = np.clip(0.5 + depth, 0.0, 1.0)
  bead = np.sqrt(np.clip(depth + 0.3, 0.0, 4.0))
  bead = drawing.blurred(bead, 1.0)
  tilt = drawing.shifted(bead, -0.8, -0.8) - drawing.shifted(bead, 0.8, 0.8)
  gloss = np.exp(-(((tilt - 0.42) / 0.25) ** 2))
  level = 0.58 + 0.28 * tilt + 0.34 * gloss
  level = np.clip(level, 0.10, 0.97)[..., None] * (1.0, 1.0, 0.98)
  return drawing.mix(board.radiance, level, coverage), coverage


def _cut_trace(
  board: Board, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
  """Draws a gouge across a bundle of traces, down to copper and fibreglass."""
  x, y, angle = layout.BUNDLES[rng.integers(len(layout.BUNDLES))]
  centre = rng.normal((x, y), 3.0)
  centre = layout.place([centre], board.frame)[0]
  angle += rng.normal(0.0, 0.25)
  along = np.array([np.cos(angle), np.sin(angle)])
  normal = np.array([-along[1], along[0]])
  half, width = rng.uniform(15.0, 26.0), rng.uniform(3.8, 6.0)
  ends = [centre - half * along, centre + half * along]
  bend = centre + rng.normal(0.0, 4.0) * normal
  curve = drawing.bezier([ends[0], bend, ends[1]])
  gouge, burr = (drawing.Canvas(board.image_size) for _ in range(2))
  for first in range(0, 22):  # The gouge is widest halfway along.
    wide = width * (0.45 + 0.55 * np.sin(np.pi * (first + 1) / 23.0))
    gouge.line(curve[first : first + 3], wide)
    burr.line(curve[first : first + 3] + 0.55 * wide * normal, 0.45 * wide)
  gouge, burr = gouge.coverage(), burr.coverage()
  grain = 0.10 * drawing.smooth_noise(rng, board.image_size, 90)
  floor = drawing.mix(board.radiance, _FIBREGLASS, 0.85 * np.ones_like(gouge))
  torn = drawing.blurred(board.copper, 0.8) * (gouge < 0.99)
  floor = drawing.mix(floor, _COPPER, torn) + grain[..., None]
  floor *= (1.0 - 0.45 * np.clip(_slope(gouge), 0.0, 1.0))[..., None]
  radiance = drawing.mix(board.radiance, 1.9 * _TRACE, 0.7 * burr)
  return drawing.mix(radiance, floor, gouge), np.maximum(gouge, burr)


def _residue(
  board: Board, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
  """Draws dried flux: an amber film or white bloom with a ring at its edge."""
  centre = rng.uniform(48.0, drawing.WIDTH - 48.0, 2)
  dx, dy = board.x - centre[0], board.y - centre[1]
  depth = drawing.blob_depth(dx, dy, rng.uniform(16.0, 27.0), rng, 0.22)
  depth = depth + 1.2 * drawing.smooth_noise(rng, board.image_size, 30)
  film = drawing.smoothstep(-0.5, 2.0, depth)
  ring = film * drawing.smoothstep(6.0, 1.5, depth)
  cloud = drawing.smooth_noise(rng, board.image_size, 18)
  opacity = film * (0.40 + 0.06 * cloud) + 0.28 * ring
  opacity = np.clip(opacity * rng.uniform(0.8, 1.15), 0.0, 0.85)
  amber = np.array([0.47, 0.33, 0.12], np.float32)
  bloom = np.array([0.62, 0.65, 0.60], np.float32)
  colour = amber if rng.random() < 0.5 else bloom
  gloss = 0.12 * ring * np.clip(-(dx + dy) / 30.0, 0.0, 1.0)
  radiance = drawing.mix(board.radiance, colour, opacity)
  return radiance + gloss[..., None], film


DEFECTS = {
  "missing_component": _missing_component,
  "solder_bridge": _solder_bridge,
  "cut_trace": _cut_trace,
  "residue": _residue,
}
