"""A figure on which pictures and texts are placed in inches.

It is drawn by matplotlib's object-oriented interface on the Agg canvas, which
needs no display and changes no global state (pyplot, rcParams). All pictures
are in one matplotlib axes, because every axes takes longer to make than a
picture takes to draw.
"""

import os
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from inp_former_jax.atomic import replacing
from inp_former_jax.evaluation.drawing.record_display import drawable

DPI = 120  # keeps nine rows of photographs below 2 MB


class Canvas:
  """A white figure; positions are inches from its left and its upper edge."""

  def __init__(self, width: float, height: float):
    """Makes an empty figure.

    Args:
      width: Width in inches.
      height: Height in inches.
    """
    self.figure = Figure((width, height), dpi=DPI, facecolor="white")
    self._axes = self.figure.add_axes((0, 0, 1, 1))
    self._axes.set_axis_off()
    self._axes.set(xlim=(0, width), ylim=(height, 0))

  def picture(
    self,
    image: np.ndarray,
    left: float,
    top: float,
    width: float,
    height: float,
  ) -> None:
    """Draws a picture in the middle of a cell, as large as fits.

    Args:
      image: The picture, (H, W, 3) uint8.
      left: Left edge of the cell.
      top: Upper edge of the cell.
      width: Width of the cell.
      height: Height of the cell.
    """
    scale = min(width / image.shape[1], height / image.shape[0])
    across, down = scale * image.shape[1], scale * image.shape[0]
    left, top = left + (width - across) / 2, top + (height - down) / 2
    box = (left, left + across, top + down, top)
    self._axes.imshow(image, extent=box, aspect="auto")

  def text(self, x: float, y: float, text: str, **style: Any) -> None:
    """Writes a text as it is, without reading $ as mathematics.

    Args:
      x: Position to the right.
      y: Position downwards.
      text: The text.
      **style: Properties of matplotlib's `Text`; by default the text is centred
        on the position and 9 points high.
    """
    look = {"ha": "center", "va": "center", "fontsize": 9} | style
    self._axes.text(x, y, drawable(text), look, parse_math=False)

  def save(self, path: str | os.PathLike) -> None:
    """Saves the figure as a PNG, atomically.

    Args:
      path: The file; its folder is created if necessary.
    """
    with replacing(path) as partial:
      FigureCanvasAgg(self.figure).print_png(partial)
