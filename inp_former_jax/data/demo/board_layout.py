"""The layout of the demo board: components, traces and vias."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from inp_former_jax.data.demo import drawing


class Component(NamedTuple):
  """The centre, orientation, size and kind of a component."""

  label: str
  x: float
  y: float
  quarter_turns: int
  length: float  # The length of the body along the axis of its terminals.
  width: float
  pins: int  # The number of pins per side; 0 for a two-terminal component.


COMPONENTS = (
  Component("U1", 84, 78, 0, 42, 94, 8),
  Component("U2", 202, 176, 0, 38, 52, 4),
  Component("R1", 190, 28, 0, 24, 13, 0),
  Component("R2", 190, 60, 0, 24, 13, 0),
  Component("R3", 190, 92, 0, 24, 13, 0),
  Component("R4", 34, 172, 1, 24, 13, 0),
  Component("C1", 66, 172, 1, 24, 15, 0),
  Component("C2", 98, 172, 1, 24, 15, 0),
  Component("C3", 222, 107, 1, 24, 15, 0),
)
PITCH = 11.5  # The distance from pin to pin.

# The start and end of each trace, and the x about which it changes from the y
# of the start to the y of the end at 45 degrees.
TRACES = (
  *(((57, 37.75 + PITCH * i), (-6, 20 + PITCH * i), 26) for i in range(8)),
  *(((111, 37.75 + PITCH * i), (180, 28 + 32 * i), 148) for i in range(3)),
  ((111, 72.25), (262, 132), 158),
  ((111, 83.75), (262, 140), 149),
  *(
    ((111, 95.25 + PITCH * i), (177, 158.75 + PITCH * i), 144) for i in range(3)
  ),
  *(((200, 28 + 32 * i), (262, 22 + 32 * i), 226) for i in range(2)),
  ((200, 92), (222, 96), 211),
  ((222, 118), (262, 124), 246),
  *(((227, 158.75 + PITCH * i), (262, 168 + PITCH * i), 246) for i in range(4)),
  ((34, 183), (98, 183), 66),
  ((34, 161), (-6, 145), 14),
  ((98, 161), (177, 193.25), 148),
  *(((-6, 214 + 9 * i), (262, 232 + 9 * i), 128 - 4 * i) for i in range(3)),
)
# Places (x, y) where traces run side by side, and an angle across the traces
# that stays in the window.
BUNDLES = (
  (36.0, 70.0, 1.75),
  (140.0, 134.0, 2.35),
  (156.0, 106.0, 2.35),
  (84.0, 217.0, 0.85),
)
VIAS = (
  (30, 130), (46, 144), (110, 146), (150, 17), (136, 197), (64, 203),
  (112, 204), (150, 221), (228, 12), (236, 74), (216, 216),
)  # fmt: skip


def place(
  points: npt.ArrayLike, frame: tuple[float, float, float]
) -> np.ndarray:
  """Moves points (n, 2) by `frame`: dx, dy and an angle about the centre."""
  dx, dy, angle = frame
  middle = 0.5 * drawing.WIDTH
  cos, sin = np.cos(angle), np.sin(angle)
  turned = (np.asarray(points, float) - middle) @ [[cos, sin], [-sin, cos]]
  return turned + middle + (dx, dy)


def route(start: tuple, end: tuple, bend: float) -> np.ndarray:
  """Returns the corners (4, 2) of a trace: horizontal, diagonal, horizontal."""
  half = np.copysign(0.5 * (end[1] - start[1]), end[0] - start[0])
  return np.array([start, (bend - half, start[1]), (bend + half, end[1]), end])


def box(
  component: Component, extent: tuple[float, float, float, float]
) -> np.ndarray:
  """Returns the corners (4, 2) on the board of a box (x, y, width, height)."""
  x, y, width, height = extent
  corners = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * 0.5
  corners = corners * (width, height) + (x, y)
  return turn(corners, component)


def turn(points: np.ndarray, component: Component) -> np.ndarray:
  """Maps points (n, 2) from the component's own axes to the board's axes."""
  for _ in range(component.quarter_turns):
    points = points[:, ::-1] * (-1, 1)
  return points + (component.x, component.y)


def terminals(component: Component) -> list[tuple[float, float]]:
  """Returns the centres of the terminals in the component's own axes."""
  if not component.pins:
    half = 0.5 * component.length - 1.0
    return [(-half, 0.0), (half, 0.0)]
  half = 0.5 * component.length + 6.0
  first = -0.5 * PITCH * (component.pins - 1)
  return [
    (side * half, first + PITCH * i)
    for i in range(component.pins)
    for side in (-1, 1)
  ]
