"""Draws what the INPs attend to, and the distance of the patches to them.

As in the paper's Fig. 4, 7 and S6. The attention is on one scale for all INPs
and images, and so is the distance.
"""

import dataclasses
import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from inp_former_jax.atomic import replacing
from inp_former_jax.data import transforms
from inp_former_jax.data.records import Record
from inp_former_jax.data.transforms import Preprocessing
from inp_former_jax.evaluation import figures
from inp_former_jax.evaluation.record_display import (
  drawable,
  short_name,
  shortened,
)
from inp_former_jax.inference.colours import ColourScale
from inp_former_jax.inference.inp_maps import InpMaps

DPI = 120
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
    attention: The scale of the attention, in shares of an INP.
    distance: The scale of the distance, 1 - cosine.
  """

  rows: tuple[InpRow, ...]
  headings: tuple[str, ...]
  attention: ColourScale
  distance: ColourScale

  @property
  def legend(self) -> str:
    """The two scales in words."""
    return (
      "Blue to red: 0 to "
      f"{100 * self.attention.vmax:.2g} % of an INP per patch; distance to the "
      f"nearest INP {self.distance.vmin:.2f} to {self.distance.vmax:.2f} "
      "(1 - cosine)."
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
  attention = ColourScale(
    0.0, _quantile((m.attention for m in inps.values()), 0.995)
  )
  low = _quantile((m.distance for m in inps.values()), 0.05)
  high = _quantile((m.distance for m in inps.values()), 0.995)
  distance = ColourScale(low, max(high, low + 1e-6))
  rows = []
  for index, maps in inps.items():
    record = records[index]
    image = transforms.load_image(record.image, preprocessing)
    attended = [
      figures.overlay(image, a, attention.vmin, attention.vmax)
      for a in maps.attention[0]
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
  pitch = CAPTION + cell
  height = MARGIN + HEADING + len(drawn.rows) * pitch + CAPTION + MARGIN / 2
  figure = Figure((width, height), dpi=DPI, facecolor="white")

  def write(x: float, y: float, text: str, **style) -> None:
    look = {"fontsize": 8, "color": "0.25", "va": "center"} | style
    figure.text(x / width, y / height, drawable(text), look, parse_math=False)

  for column, heading in enumerate(drawn.headings):
    x = MARGIN + column * (CELL + GAP) + CELL / 2
    write(x, height - MARGIN / 2 - HEADING / 2, heading, ha="center")
  for i, row in enumerate(drawn.rows):
    top = height - MARGIN / 2 - HEADING - i * pitch
    title = shortened(row.title, 14 * columns)
    write(MARGIN, top - CAPTION / 2, title, color="black")
    for column, picture in enumerate(row.pictures):
      x, y = MARGIN + column * (CELL + GAP), top - pitch
      box = (x / width, y / height, CELL / width, cell / height)
      axes = figure.add_axes(box, xticks=[], yticks=[], frame_on=False)
      axes.imshow(picture)
  legend_y = MARGIN / 2 + CAPTION / 2
  write(MARGIN, legend_y, shortened(drawn.legend, 17 * columns))
  with replacing(pathlib.Path(path)) as partial:
    FigureCanvasAgg(figure).print_png(partial)
