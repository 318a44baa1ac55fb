"""Images on their way through a model: cut into inputs, and put together.

A picture is inspected whole, or in tiles. Either way it gives one or several
inputs of the model, takes their maps, and ends as one map and one score.
"""

import dataclasses
import functools
import os
import pathlib
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor
from typing import Any

import jax
import numpy as np
from PIL import Image

from inp_former_jax.data import transforms
from inp_former_jax.data.arrays import from_array
from inp_former_jax.data.errors import DataError
from inp_former_jax.data.image_files import (
  EXTENSIONS,
  ImageSource,
  StoredFile,
  find_images,
  printable,
)
from inp_former_jax.data.transforms import Preprocessing
from inp_former_jax.inference import scoring
from inp_former_jax.inference.framing import geometry
from inp_former_jax.inference.framing.parallel import ordered_map
from inp_former_jax.inference.framing.regions import IgnoredRegions
from inp_former_jax.inference.framing.tiling import Tile, Tiling

Item = ImageSource | Image.Image | np.ndarray  # one image to inspect


@dataclasses.dataclass(frozen=True)
class Framing:
  """How images are cut into inputs of the model, and scored from its maps.

  Attributes:
    preprocessing: The sizes that the model was trained with.
    patch_size: Side of the encoder's patches in pixels.
    top_fraction: Share of a map's pixels, the highest, whose mean is the image
      score.
    map_size: Side of the model's anomaly maps in pixels.
    tile: Height, width and overlap of tiles in pixels; None inspects an image
      whole.
    keep_aspect: Whether an image keeps its aspect ratio when it is resized.
    ignored: The regions that never count, if any.
  """

  preprocessing: Preprocessing
  patch_size: int
  top_fraction: float
  map_size: int
  tile: tuple[int, int, int] | None = None
  keep_aspect: bool = False
  ignored: IgnoredRegions | None = None

  def of_picture(self, size: tuple[int, int]) -> Preprocessing:
    """Returns the sizes for an image, or for a tile of it.

    Args:
      size: Height and width in pixels of the image or tile.
    """
    sizes = self.preprocessing
    if self.tile:
      # A tile is resized as a whole: a crop would leave gaps between tiles.
      sizes = Preprocessing(resize=sizes.crop, crop=sizes.crop)
    if self.keep_aspect:
      return geometry.with_aspect_of(size, sizes, self.patch_size)
    return sizes


class WholePicture:
  """An image that is one input of the model."""

  def __init__(self, source: ImageSource | int, item: Item, framing: Framing):
    """Decodes, resizes and crops the image.

    Args:
      source: The file, or the position of an image that is no file.
      item: The image.
      framing: How images are cut.

    Raises:
      DataError: If the file cannot be read.
    """
    self.source, self._framing = source, framing
    image = _decode(item)
    self.size = image.height, image.width
    self.preprocessing = framing.of_picture(self.size)
    cut = transforms.resize_and_crop(image, self.preprocessing)
    self._input = np.asarray(cut)
    self._result: tuple[np.ndarray, float] | None = None
    if framing.ignored and self._left_out(framing.map_size).all():
      raise DataError(
        f"The ignored regions of {framing.ignored.name} cover all that the "
        "model inspects, which is the centre crop of an image. Ignore less."
      )

  def inputs(self, executor: Executor) -> Iterator["Input"]:
    """Yields the input, (height, width, 3) uint8."""
    del executor
    yield Input(self, None, self._input)

  def add(self, tile: Tile | None, anomaly_map: np.ndarray, score: float):
    """Takes the model's answer.

    Args:
      tile: Always None here.
      anomaly_map: The map of the input, (S, S) float32.
      score: The image score.

    Returns:
      Whether the picture is complete.
    """
    del tile
    ignored = self._framing.ignored
    whole = geometry.map_at_image_size(
      anomaly_map, self.size, self.preprocessing
    )
    if ignored:
      whole[ignored.of_size(self.size)] = np.nan
      left_out = self._left_out(len(anomaly_map))
      score = scoring.score_of_map(
        np.where(left_out, np.nan, anomaly_map), self._framing.top_fraction
      )
    self._result = whole, score
    return True

  def _left_out(self, samples: int) -> np.ndarray:
    """Returns which values of the model's map are ignored, (S, S) bool."""
    assert self._framing.ignored is not None
    return _ignored_samples(
      self._framing.ignored, self.size, self.preprocessing, samples
    )

  def result(self) -> tuple[np.ndarray, float]:
    """Hands out the map at the image's size, (H, W) float32, and the score."""
    assert self._result is not None
    result, self._result = self._result, None  # one reference less to the map
    return result


class TiledPicture:
  """An image that is inspected in overlapping tiles."""

  def __init__(self, source: ImageSource | int, item: Item, framing: Framing):
    """Decodes the image.

    Args:
      source: The file, or the position of an image that is no file.
      item: The image.
      framing: How images are cut.

    Raises:
      DataError: If the file cannot be read.
    """
    assert framing.tile is not None
    self.source, self._framing = source, framing
    self._image: Image.Image | None = _decode(item)
    self.size = self._image.height, self._image.width
    self._tiling = Tiling(self.size, framing.tile)
    self._missing = len(self._tiling)
    self._map: np.ndarray | None = None
    if framing.ignored:
      framing.ignored.of_size(self.size)

  def inputs(self, executor: Executor) -> Iterator["Input"]:
    """Yields the tiles, each (height, width, 3) uint8.

    Args:
      executor: The threads that cut the tiles.
    """
    yield from ordered_map(executor, self._cut, self._tiling, ahead=16)
    self._image = None  # frees its memory, which is the larger part

  def _cut(self, tile: Tile) -> "Input":
    assert self._image is not None
    sizes = self._framing.of_picture(_tile_size(tile))
    # Cropped first: Pillow's resize would use pixels beyond its box.
    cut = transforms.resize_and_crop(self._image.crop(tile.box), sizes)
    return Input(self, tile, np.asarray(cut))

  def add(self, tile: Tile | None, anomaly_map: np.ndarray, score: float):
    """Takes the model's answer to a tile.

    Args:
      tile: The tile.
      anomaly_map: The map of the tile, (S, S) float32.
      score: The score of the tile, which is not used.

    Returns:
      Whether the picture is complete.
    """
    del score
    assert tile is not None
    if self._map is None:
      self._map = np.zeros(self.size, np.float32)
    size = _tile_size(tile)
    part = geometry.map_at_image_size(
      anomaly_map, size, self._framing.of_picture(size)
    )
    rows, columns = self._tiling.weights(tile)
    left, upper, right, lower = tile.box
    part *= rows[:, None]
    part *= columns
    self._map[upper:lower, left:right] += part
    self._missing -= 1
    return self._missing == 0

  def result(self) -> tuple[np.ndarray, float]:
    """Hands out the blended map, (H, W) float32, and the score from it."""
    assert self._map is not None
    blended, self._map = self._map, None  # one reference less to the map
    if self._framing.ignored:
      blended[self._framing.ignored.of_size(self.size)] = np.nan
    return blended, scoring.score_of_map(blended, self._framing.top_fraction)


Picture = WholePicture | TiledPicture


@dataclasses.dataclass(frozen=True)
class Input:
  """An input of the model.

  Attributes:
    picture: The picture that it is part of.
    tile: The tile that it shows; None for the whole picture.
    pixels: Its pixels, (height, width, 3) uint8.
  """

  picture: Picture
  tile: Tile | None
  pixels: np.ndarray


def batches(inputs: Iterable[Input], size: int) -> Iterator[list[Input]]:
  """Yields inputs in batches.

  Args:
    inputs: The inputs.
    size: The largest number of inputs in a batch.

  Yields:
    Inputs of equal shape that follow each other.
  """
  batch: list[Input] = []
  for item in inputs:
    if batch and (
      len(batch) == size or item.pixels.shape != batch[0].pixels.shape
    ):
      yield batch
      batch = []
    batch.append(item)
  if batch:
    yield batch


def _decode(item: Item) -> Image.Image:
  if isinstance(item, Image.Image):
    with transforms.readable(getattr(item, "filename", "") or "An image"):
      item.load()  # Pillow reads lazily, and the file may be damaged
  if isinstance(item, Image.Image | np.ndarray):
    return from_array(item)
  return transforms.decode(item, "RGB")


def is_image(item: object) -> bool:
  """Returns whether something is one image, rather than several."""
  if isinstance(item, np.ndarray | jax.Array):
    return item.ndim < 4
  return isinstance(item, Image.Image | StoredFile)


def _tile_size(tile: Tile) -> tuple[int, int]:
  left, upper, right, lower = tile.box
  return lower - upper, right - left


@functools.lru_cache(maxsize=4)
def _ignored_samples(
  ignored: IgnoredRegions,
  size: tuple[int, int],
  preprocessing: Preprocessing,
  samples: int,
) -> np.ndarray:
  """Returns which values of the model's map lie in ignored regions, (S, S)."""
  picture = Image.fromarray(ignored.of_size(size).astype(np.uint8) * 255)
  box = geometry.field_of_view(size, preprocessing)
  share = picture.resize((samples, samples), Image.Resampling.BOX, box=box)
  return np.asarray(share) > 0


def flat(images: Any) -> Iterable[Item]:
  """Returns single images from whatever holds them.

  Args:
    images: One image; a folder, which is searched with its subfolders; a batch
      (B, H, W, 3); or an iterable of any of these.

  Returns:
    The images; those of an iterable that is no list or tuple are taken from it
    one by one.

  Raises:
    DataError: If a folder holds no images, or cannot be searched.
    ValueError: If it is none of these.
  """
  if isinstance(images, str | os.PathLike):
    path = pathlib.Path(images).expanduser()
    if not path.is_dir() or path.suffix.lower() in EXTENSIONS:
      return [path]  # a folder that is named like an image is reported
    found = find_images(path)
    if not found:
      raise DataError(
        f"{printable(path)} holds no images: no file in it or in its "
        f"subfolders ends in {', '.join(sorted(EXTENSIONS))}."
      )
    return found
  if is_image(images):
    return [np.asarray(images) if isinstance(images, jax.Array) else images]
  if isinstance(images, np.ndarray | jax.Array):
    return np.asarray(images)  # a batch: its rows
  if not isinstance(images, Iterable):
    raise ValueError(
      f"`images` is a {type(images).__name__}; expected a path, a Pillow "
      "image, an array, or an iterable of these."
    )
  items = (item for group in images for item in flat(group))
  return list(items) if isinstance(images, list | tuple) else items
