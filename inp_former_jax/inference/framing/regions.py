"""Regions of an image that never count, from a mask or from polygons."""

import dataclasses
import hashlib
import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from inp_former_jax.data import transforms
from inp_former_jax.data.errors import DataError
from inp_former_jax.data.text_files import parse_json, read_bytes


@dataclasses.dataclass(frozen=True, eq=False)
class IgnoredRegions:
  """Regions of every image that never count.

  Attributes:
    name: The file that they are from, for errors.
    sha256: Checksum of the regions.
    mask: True where a pixel is ignored, (H, W) bool; None for polygons.
    polygons: The corners (x, y) of each polygon, in pixels of the image.
  """

  name: str
  sha256: str
  mask: np.ndarray | None = None
  polygons: tuple[tuple[tuple[float, float], ...], ...] = ()

  def of_size(self, size: tuple[int, int]) -> np.ndarray:
    """Returns the regions as a mask of an image.

    Args:
      size: Height and width of the image in pixels.

    Returns:
      True where a pixel is ignored, (height, width) bool.

    Raises:
      DataError: If a mask has another size than the image, or if nothing of the
        image is left.
    """
    if self.mask is None:
      picture = Image.new("L", (size[1], size[0]))
      draw = ImageDraw.Draw(picture)
      for polygon in self.polygons:
        draw.polygon(polygon, fill=255)
      ignored = np.asarray(picture) > 0
    else:
      ignored = self.mask
    if ignored.shape != size:
      raise DataError(
        f"The ignored regions of {self.name} are for images of "
        f"{ignored.shape[1]}x{ignored.shape[0]} pixels (width x height); an "
        f"image has {size[1]}x{size[0]}. Draw them on an image of this size."
      )
    if ignored.all():
      raise DataError(
        f"The ignored regions of {self.name} cover the whole image, so there "
        "is nothing to inspect. Black (0) is what is inspected."
      )
    return ignored


def load_regions(source: str | os.PathLike | np.ndarray) -> IgnoredRegions:
  """Loads regions to ignore.

  Args:
    source: An image file that is brighter than half where pixels are to be
      ignored; or a JSON file with a list of polygons, each a list of corners
      [x, y] in pixels of the image, or as LabelMe writes it (`shapes`); or a
      mask, (H, W) bool.

  Returns:
    The regions.

  Raises:
    DataError: If the file cannot be read, or ignores nothing.
  """
  if isinstance(source, np.ndarray):
    if source.ndim != 2 or source.dtype != bool:
      raise DataError(
        f"`ignore` is an array {source.shape} of {source.dtype}; expected a "
        "mask (height, width) of bool, True where pixels are ignored."
      )
    return _of_mask("an array", source)
  path = pathlib.Path(source).expanduser()
  if path.suffix.lower() != ".json":
    return _of_mask(str(path), np.asarray(transforms.decode(path, "L")) > 127)
  try:
    content = parse_json(read_bytes(path, "polygons"), str(path))
    polygons = tuple(_polygon(item) for item in _items(content))
  except (OSError, ValueError, TypeError, KeyError) as error:
    raise DataError(
      f"{path} cannot be read as polygons ({error}); expected a list of "
      "polygons, each of three or more corners [x, y], as in "
      "[[[0, 0], [100, 0], [100, 50]]], or LabelMe's JSON."
    ) from error
  if not polygons:
    raise DataError(f"{path} holds no polygon, so it ignores nothing.")
  text = json.dumps(polygons)
  return IgnoredRegions(str(path), _sha256(text.encode()), polygons=polygons)


def _of_mask(name: str, mask: np.ndarray) -> IgnoredRegions:
  if not mask.any():
    raise DataError(
      f"{name} ignores nothing: no pixel is brighter than half. Paint white "
      "(255) what is to be ignored."
    )
  shape = f"{mask.shape}".encode()
  return IgnoredRegions(name, _sha256(shape + mask.tobytes()), mask=mask)


def _items(content: Any) -> Sequence:
  if isinstance(content, Mapping):
    return [shape["points"] for shape in content["shapes"]]
  return content


def _polygon(corners: Sequence) -> tuple[tuple[float, float], ...]:
  polygon = tuple((float(x), float(y)) for x, y in corners)
  if len(polygon) < 3:
    raise ValueError(f"a polygon has {len(polygon)} corners")
  return polygon


def _sha256(content: bytes) -> str:
  return hashlib.sha256(content).hexdigest()
