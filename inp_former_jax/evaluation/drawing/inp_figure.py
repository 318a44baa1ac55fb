"""Draws what the INPs attend to, and the distance of the patches to them.

As in the paper's Fig. 4, 7 and S6. Each INP has one scale for all images, and
so has the distance.
"""

import dataclasses
import os
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from inp_former_jax.data import transforms
from inp_former_jax.data.records import Record
from inp_former_jax.data.transforms import Preprocessing
from inp_former_jax.evaluation import figures
from inp_former_jax.evaluation.drawing.canvas import Canvas
from inp_former_jax.evaluation.drawing.record_display import (
  short_name,
  shortened,
)
from inp_former_jax.inference.colours import ColourScale
from inp_former_jax.inference.inp_maps import InpMaps

# Lengths in inches.
CELL, GAP, MARGIN, CAPTION, HEADING = 1.2, 0.04, 0.12, 0.22, 0.2


@dataclasses.dataclass(frozen=True)
class InpRow:
  """The pictures of one image.

  Attributes:
    title: Category, defect and name of the image.
    pictures: The image, the attention of each INP over it, and the distance,
      each (H, W, 3) uint8.
  """

  title: str
  pictures: tuple[np.ndarray, ...]


@dataclasses.dataclass(frozen=True)
class InpFigure:
  """The pictures of several images on common scales.

  Attributes:
    rows: The images, at least one.
    headings: What the pictures of each row show.
    attention: The scale of each INP's attention, in shares of the INP.
    distance: The scale of the distance, 1 - cosine.
  """

  rows: tuple[InpRow, ...]
  headings: tuple[str, ...]
  attention: tuple[ColourScale, ...]
  distance: ColourScale

  @property
  def legend(self) -> str:
    """The scales in words."""
    shares = ", ".join(f"{100 * scale.vmax:.2g}" for scale in self.attention)
    return (
      f"Blue to red: a patch's share of the INP from 0 to {shares} %; distance "
      f"to the nearest INP from {self.distance.vmin:.2f} to "
      f"{self.distance.vmax:.2f} (1 - cosine)."
    )


def inp_figure(
  records: Sequence[Record],
  inps: Mapping[int, InpMaps],
  preprocessing: Preprocessing,
) -> InpFigure:
  """Draws the INP maps over their images.

  Args:
    records: The test records.
    inps: The INP maps of some of them, at least one, each of a single image, by
      the index of the record.
    preprocessing: Sizes of the images.
  """
  number = next(iter(inps.values())).attention.shape[1]
  attention = tuple(
    ColourScale(
      0.0, _quantile((m.attention[:, k] for m in inps.values()), 0.99)
    )
    for k in range(number)
  )
  low = _quantile((m.distance for m in inps.values()), 0.05)
  high = _quantile((m.distance for m in inps.values()), 0.995)
  distance = ColourScale(low, max(high, low + 1e-6))
  rows = []
  for index, maps in inps.items():
    record = records[index]
    image = transforms.load_image(record.image, preprocessing)
    attended = [
      figures.overlay(image, shares, scale.vmin, scale.vmax)
      for shares, scale in zip(maps.attention[0], attention, strict=True)
    ]
    far = figures.overlay(image, maps.distance[0], distance.vmin, distance.vmax)
    title = f"{record.category} / {record.defect}: {short_name(record.image)}"
    rows.append(InpRow(title, (image, *attended, far)))
  names = [f"INP {i + 1}" for i in range(len(rows[0].pictures) - 2)]
  return InpFigure(
    tuple(rows), ("image", *names, "distance"), attention, distance
  )


def _quantile(arrays: Iterable[np.ndarray], share: float) -> float:
  return float(np.quantile(np.concatenate([a.ravel() for a in arrays]), share))


def save_inp_figure(path: str | os.PathLike, drawn: InpFigure) -> None:
  """Saves the pictures as a PNG, a row for each image.

  Args:
    path: The PNG file to write.
    drawn: The pictures.
  """
  shape = drawn.rows[0].pictures[0].shape
  cell = CELL * float(np.clip(shape[0] / shape[1], 0.1, 2.0))
  columns = len(drawn.headings)
  width = 2 * MARGIN + columns * (CELL + GAP) - GAP
  pitch, top = CAPTION + cell, MARGIN / 2 + HEADING
  bottom = top + len(drawn.rows) * pitch
  canvas = Canvas(width, bottom + CAPTION + MARGIN)
  look = {"fontsize": 8, "color": "0.25"}
  for column, heading in enumerate(drawn.headings):
    x = MARGIN + column * (CELL + GAP) + CELL / 2
    canvas.text(x, MARGIN / 2 + HEADING / 2, heading, **look)
  for i, row in enumerate(drawn.rows):
    upper = top + i * pitch
    title = shortened(row.title, 16 * columns)
    canvas.text(MARGIN, upper + CAPTION / 2, title, ha="left", fontsize=8)
    for column, picture in enumerate(row.pictures):
      x = MARGIN + column * (CELL + GAP)
      canvas.picture(picture, x, upper + CAPTION, CELL, cell)
  legend = shortened(drawn.legend, 19 * columns)
  canvas.text(
    MARGIN, bottom + MARGIN / 2 + CAPTION / 2, legend, ha="left", **look
  )
  canvas.save(path)
