"""The views to distil on: real images, generated parts and textures."""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from absl import logging
from PIL import Image, ImageEnhance, ImageFilter

from inp_former_jax.data import image_files, transforms
from inp_former_jax.data.demo import parts
from inp_former_jax.data.errors import DataError
from inp_former_jax.distillation.textures import make_texture

TRAIN, HELD_OUT = "train", "held_out"
SPLITS = (TRAIN, HELD_OUT)
SOURCES = ("images", "parts", "textures")

_GENERATED_SEED = 1_000_000  # far above the seeds of the demo itself
_HELD_OUT_SHARE = 0.1  # of the images of a folder, but at least one image
_JITTER = (0.7, 1.3)  # range of the factors of brightness, contrast, saturation


@dataclasses.dataclass(frozen=True)
class ViewSettings:
  """Settings that decide every view.

  Attributes:
    folders: Folders with images, searched to any depth. Views come equally
      often from each folder, however many images it holds.
    shares: Relative frequencies of views from each of SOURCES, in that order
      and on any positive scale. Without folders, that of images is 0.
    size: Side of a view in pixels.
    min_area: Area of the smallest crop, as a share of the image's area.
    seed: Seed of all random choices; the same seed gives the same views.
  """

  folders: tuple[str, ...]
  shares: tuple[float, float, float]
  size: int
  min_area: float
  seed: int


class Views:
  """Random access to the views of a split; a view depends only on its index.

  Held-out views come from other images, and other generated parts and
  textures, than the views to train on.
  """

  def __init__(self, settings: ViewSettings, split: str, count: int):
    """Finds the images of the split.

    Args:
      settings: The settings that decide the views.
      split: Name of the split, one of SPLITS.
      count: Number of views in the split.

    Raises:
      DataError: If a folder holds too few images, or if the shares are not
        three numbers that are at least 0 and not all 0.
    """
    if len(settings.shares) != 3 or min(settings.shares) < 0:
      raise DataError(
        f"`shares` is {settings.shares}; expected three numbers that are "
        f"not negative, for {', '.join(SOURCES)}."
      )
    shares = np.array(settings.shares, float)
    if not settings.folders:
      shares[0] = 0.0
    if shares.sum() <= 0:
      raise DataError(
        "There is nothing to take views of: set `folders`, or a share of "
        "parts or textures in `shares`."
      )
    self.settings, self._count = settings, count
    self._split = SPLITS.index(split)
    self._shares = shares / shares.sum()
    self._folders = [
      _split_images(find_images(folder), split, settings.seed)
      for folder in settings.folders
    ]

  def __len__(self) -> int:
    """Returns the number of views."""
    return self._count

  def identity(self) -> dict[str, Any]:
    """Returns everything that decides the views, fit for JSON.

    It holds the numbers of images instead of the folders, which may move but
    must not change their content.
    """
    identity = dataclasses.asdict(self.settings)
    folders = identity.pop("folders")
    return identity | {"images": [len(find_images(f)) for f in folders]}

  def source(self, index: int) -> str:
    """Returns the source of a view, one of SOURCES."""
    rng = self._rng(index)
    return SOURCES[rng.choice(3, p=self._shares)]

  def __getitem__(self, index: int) -> np.ndarray:
    """Makes a view.

    Args:
      index: Index of the view, in [0, count).

    Returns:
      The view, (S, S, 3) uint8, RGB.

    Raises:
      DataError: If an image file cannot be read; the error names the file.
    """
    rng = self._rng(index)
    source = SOURCES[rng.choice(3, p=self._shares)]
    size = self.settings.size
    if source == "textures":
      return make_texture(rng, size)
    image = self._image(rng) if source == "images" else _part(rng)
    return _augment(image, size, self.settings.min_area, rng)

  def _rng(self, index: int) -> np.random.Generator:
    if not 0 <= index < self._count:
      raise IndexError(f"View {index} of {self._count}.")
    return np.random.default_rng([self.settings.seed, self._split, index])

  def _image(self, rng: np.random.Generator) -> Image.Image:
    paths = self._folders[rng.integers(len(self._folders))]
    return transforms.decode(paths[rng.integers(len(paths))], "RGB")


def find_images(folder: str) -> list[pathlib.Path]:
  """Finds the images in a folder, except for masks in `ground_truth` folders.

  Files that Pillow cannot open are left out, with a warning.

  Args:
    folder: The folder, searched to any depth.

  Returns:
    The paths of the images, sorted.

  Raises:
    DataError: If the folder does not exist or holds fewer than two images.
  """
  root = pathlib.Path(folder).expanduser()
  if not root.is_dir():
    raise DataError(
      f"`folders` names {root}, which is not a folder. Name folders with "
      "images, or no folder, to distil on generated views only."
    )
  paths = [
    path
    for path in image_files.find_images(root)
    if "ground_truth" not in path.parts and _can_be_opened(path)
  ]
  if len(paths) < 2:
    raise DataError(
      f"{root} holds {len(paths)} images "
      f"({', '.join(image_files.EXTENSIONS)}); expected at least two, because "
      "some are held out."
    )
  return paths


def _can_be_opened(path: pathlib.Path) -> bool:
  try:
    with image_files.open_image_file(path):
      return True
  except (DataError, OSError) as error:
    logging.warning("%s is left out: %s", path, error)
    return False


def _split_images(
  paths: Sequence[pathlib.Path], split: str, seed: int
) -> list[pathlib.Path]:
  order = np.random.default_rng([seed, len(paths)]).permutation(len(paths))
  held_out = max(1, round(_HELD_OUT_SHARE * len(paths)))
  chosen = order[:held_out] if split == HELD_OUT else order[held_out:]
  return [paths[i] for i in sorted(chosen)]


def _part(rng: np.random.Generator) -> Image.Image:
  """Draws a part, good or defective, that is in no demo data set."""
  category = parts.CATEGORIES[rng.integers(len(parts.CATEGORIES))]
  kinds = ("good", *parts.DEFECTS[category])
  defect = "good" if rng.random() < 0.5 else kinds[rng.integers(len(kinds))]
  seed = _GENERATED_SEED + int(rng.integers(2**31))
  image, _ = parts.make_sample(category, defect, seed=seed)
  return Image.fromarray(image)


def _augment(
  image: Image.Image, size: int, min_area: float, rng: np.random.Generator
) -> np.ndarray:
  if rng.random() < 0.3:  # the whole image, as in training and evaluation
    resize = round(size * 8 / 7)
    preprocessing = transforms.Preprocessing((resize, resize), (size, size))
    image = transforms.resize_and_crop(image, preprocessing)
  else:
    image = _random_crop(image, size, min_area, rng)
  image = _jitter(image, rng)
  if rng.random() < 0.5:
    image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
  return np.ascontiguousarray(np.rot90(np.asarray(image), int(rng.integers(4))))


def _random_crop(
  image: Image.Image, size: int, min_area: float, rng: np.random.Generator
) -> Image.Image:
  area = np.exp(rng.uniform(np.log(min_area), 0.0))
  aspect = np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3)))
  width = image.width * min(1.0, np.sqrt(area * aspect))
  height = image.height * min(1.0, np.sqrt(area / aspect))
  left = rng.uniform(0, image.width - width)
  top = rng.uniform(0, image.height - height)
  box = (left, top, left + width, top + height)
  return image.resize((size, size), Image.Resampling.BILINEAR, box=box)


def _jitter(image: Image.Image, rng: np.random.Generator) -> Image.Image:
  if rng.random() < 0.2:
    return image
  for enhance in (
    ImageEnhance.Brightness,
    ImageEnhance.Contrast,
    ImageEnhance.Color,
  ):
    image = enhance(image).enhance(rng.uniform(*_JITTER))
  if rng.random() < 0.1:
    image = image.convert("L").convert("RGB")
  if rng.random() < 0.1:
    image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.5, 1.5)))
  return image
