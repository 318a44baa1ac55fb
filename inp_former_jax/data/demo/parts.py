"""A procedural demo data set in the layout of MVTec AD.

There are three kinds of parts, each with the variation that good parts have and
with four kinds of defects whose masks are exact. All are drawn from a seed.

  root/demo.json                              the arguments and the format
  root/<category>/train/good/000.png
  root/<category>/validation/good/000.png
  root/<category>/test/good/000.png
  root/<category>/test/<defect>/000.png
  root/<category>/ground_truth/<defect>/000_mask.png    0 or 255, one channel
"""

import json
import os
import pathlib
import shutil
import uuid
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image
from scipy import ndimage

from inp_former_jax.atomic import write_json
from inp_former_jax.data.demo import board, cloth, drawing, washer

_PARTS = {"washer": washer, "cloth": cloth, "board": board}

CATEGORIES: tuple[str, ...] = tuple(_PARTS)
DEFECTS: dict[str, tuple[str, ...]] = {
  category: tuple(part.DEFECTS) for category, part in _PARTS.items()
}

# The section of a part that the camera sees, if not all of it: left, top and
# side in units of 1/256 of the part. The camera is so close to the board that
# the place of a lost resistor covers more than the top percent of the anomaly
# map, from which the score is computed.
_VIEWS = {"board": (54.0, 20.0, 184.0)}

# Raise this whenever the same arguments give different pictures.
_FORMAT_VERSION = 4
_MIN_IMAGE_SIZE = 64
_VISIBLE = 0.1  # The coverage of a pixel above which it belongs to a defect.
_LEAST_AREA = 12.0 / 256**2  # Least share of the picture that a region covers.
_TRIES = 100  # Tries to draw a defect within the window; most need only one.


def make_sample(
  category: str,
  defect: str = "good",
  *,
  seed: int = 0,
  split: int = 0,
  index: int = 0,
  image_size: int = 256,
) -> tuple[np.ndarray, np.ndarray]:
  """Makes a picture and its mask.

  A sample depends only on its own arguments, not on the number of samples. The
  same seed, split and index give the same part in the same light for every
  `defect`: outside the mask, the picture equals that of the good part. A mask
  has no specks and lies completely in the central window of the picture
  (`drawing.WINDOW`).

  Args:
    category: The kind of part, one of `CATEGORIES`.
    defect: "good" or one of `DEFECTS[category]`.
    seed: The seed of the data set, at least 0.
    split: The number of the split, at least 0.
    index: The number of the picture in its split, at least 0.
    image_size: The side of the picture in pixels, at least 64.

  Returns:
    The image, (H, W, 3) uint8, and its mask, (H, W) uint8, 255 where the
    defect is and 0 elsewhere.

  Raises:
    ValueError: If the category or the defect is unknown, or if the image size
      is too small.
  """
  _check_sample(category, defect, image_size)
  part_module = _PARTS[category]
  entropy = [seed, CATEGORIES.index(category), split, index]
  rng = np.random.default_rng([*entropy, 0])
  part_size, seen = _view(category, image_size)
  part = part_module.make_part(part_size, rng)
  gain, noise = drawing.photograph(image_size, rng)
  radiance = part.radiance[seen]
  mask = np.zeros((image_size, image_size), bool)
  if defect != "good":
    number = 1 + DEFECTS[category].index(defect)
    defect_rng = np.random.default_rng([*entropy, number])
    draw = part_module.DEFECTS[defect]
    spoilt, mask = _spoil(draw, part, seen, defect_rng)
    # In float32, because pixels outside the mask might round differently
    # otherwise.
    spoilt = spoilt.astype(np.float32)
    radiance = np.where(mask[..., None], spoilt, radiance)
  exposure = np.clip(radiance * gain + noise, 0.0, 1.0)
  image = (255.0 * exposure + 0.5).astype(np.uint8)
  return image, np.where(mask, 255, 0).astype(np.uint8)


def _view(category: str, image_size: int) -> tuple[int, tuple[slice, slice]]:
  """Returns the size to draw a part at, and the rows and columns to show."""
  width = drawing.WIDTH
  left, top, side = _VIEWS.get(category, (0.0, 0.0, width))
  part_size = round(image_size * width / side)
  x, y = (round(start * part_size / width) for start in (left, top))
  return part_size, (slice(y, y + image_size), slice(x, x + image_size))


def _spoil(
  draw: Callable,
  part: Any,
  seen: tuple[slice, slice],
  rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
  """Draws a defect again until it lies completely in the window.

  Args:
    draw: One of the functions in the `DEFECTS` of the part's module.
    part: The good part.
    seen: The rows and columns of the part that the picture shows.
    rng: The generator that draws the defect.

  Returns:
    The radiance of the part with the defect, (H, W, 3), and the mask of the
    pixels that show the defect, (H, W) bool.
  """
  x, y = drawing.pixel_grid(seen[0].stop - seen[0].start)
  outside = drawing.window_depth(x) < 0.0
  outside |= drawing.window_depth(y) < 0.0
  for _ in range(_TRIES):
    spoilt, coverage = draw(part, rng)
    mask = _without_specks(coverage[seen] > _VISIBLE)
    if mask.any() and not mask[outside].any():
      return spoilt[seen], mask
  raise RuntimeError(f"{draw.__name__} found no place in {_TRIES} tries.")


def _without_specks(mask: np.ndarray) -> np.ndarray:
  """Drops small 8-connected regions, which scores per region would count."""
  regions, _ = ndimage.label(mask, np.ones((3, 3)))
  areas = np.bincount(regions.ravel())
  return mask & (areas[regions] >= _LEAST_AREA * mask.size)


def _check_sample(category: str, defect: str, image_size: int) -> None:
  if category not in _PARTS:
    raise ValueError(
      f"category is {category!r}, expected one of {', '.join(CATEGORIES)}."
    )
  if defect not in ("good", *DEFECTS[category]):
    raise ValueError(
      f"defect is {defect!r}, expected good or, for {category}, one of "
      f"{', '.join(DEFECTS[category])}."
    )
  if image_size < _MIN_IMAGE_SIZE:
    raise ValueError(
      f"image_size is {image_size}, expected {_MIN_IMAGE_SIZE} or more: "
      "smaller pictures do not resolve the parts."
    )


def write_demo_dataset(
  root: str | os.PathLike,
  *,
  seed: int = 0,
  image_size: int = 256,
  train: int = 32,
  test_good: int = 8,
  test_per_defect: int = 4,
  validation: int = 20,
) -> pathlib.Path:
  """Writes the demo data set, whole or not at all, unless it exists already.

  Several processes may call this at once with the same arguments. Each writes
  to a temporary folder beside `root`; the first to finish renames its folder,
  and the others delete theirs.

  Args:
    root: The folder to create, with its parents.
    seed: The seed; the same seed gives the same files, bit for bit.
    image_size: The side of the pictures in pixels, at least 64.
    train: The number of good pictures to train on per category, at least 1.
    test_good: The number of good pictures to test on per category, at least 1.
    test_per_defect: The number of pictures to test on per kind of defect, at
      least 1.
    validation: The number of good pictures per category to calibrate
      thresholds on; 0 for none.

  Returns:
    The absolute path of `root`. A data set of the same numbers that was written
    before there were validation pictures is left without them.

  Raises:
    ValueError: If a number is out of range, or if `root` holds anything other
      than this exact data set. Nothing is overwritten.
  """
  settings = {
    "format_version": _FORMAT_VERSION,
    "seed": seed,
    "image_size": image_size,
    "train": train,
    "test_good": test_good,
    "test_per_defect": test_per_defect,
    "validation": validation,
  }
  _check_settings(settings)
  root = pathlib.Path(root).expanduser().resolve()
  if _is_written(root, settings):
    return root
  root.parent.mkdir(parents=True, exist_ok=True)
  # Beside root, because a rename is atomic only within one file system.
  temporary = root.with_name(f".{root.name}.{uuid.uuid4().hex}")
  temporary.mkdir()
  try:
    _write_pictures(temporary, settings)
    write_json(temporary / "demo.json", settings)
    try:
      temporary.rename(root)
    except OSError:
      # Another process was first; its data set must be the same.
      if not _is_written(root, settings):
        raise
  finally:
    shutil.rmtree(temporary, ignore_errors=True)
  return root


def _check_settings(settings: dict[str, int]) -> None:
  least = {"seed": 0, "image_size": _MIN_IMAGE_SIZE, "validation": 0}
  for name, value in settings.items():
    minimum = least.get(name, 1)
    if not isinstance(value, int) or value < minimum:
      raise ValueError(
        f"{name} is {value!r}, expected a whole number, {minimum} or more."
      )


def _is_written(root: pathlib.Path, settings: dict[str, int]) -> bool:
  """Returns whether `root` is this data set; raises if it is something else."""
  if not root.exists() or (root.is_dir() and not any(root.iterdir())):
    return False
  advice = "Choose another folder, or remove this one and run again."
  if not root.is_dir():
    raise ValueError(f"{root} is a file, expected a folder. {advice}")
  record = root / "demo.json"
  if not record.is_file():
    found = ", ".join(sorted(path.name for path in root.iterdir())[:5])
    raise ValueError(
      f"{root} is not empty and has no demo.json; found {found}. The demo data "
      f"set does not write into other data. {advice}"
    )
  try:
    found = json.loads(record.read_text())
  except ValueError:
    found = "no valid JSON"
  earlier = {k: v for k, v in settings.items() if k != "validation"}
  if found not in (settings, earlier):
    raise ValueError(
      f"{root} holds another demo data set: {record.name} has {found}, "
      f"expected {settings}. {advice}"
    )
  return True


def _write_pictures(root: pathlib.Path, settings: dict[str, int]) -> None:
  for category in CATEGORIES:
    splits = [
      ("train/good", "good", settings["train"]),
      ("test/good", "good", settings["test_good"]),
    ]
    for defect in DEFECTS[category]:
      splits.append((f"test/{defect}", defect, settings["test_per_defect"]))
    # The last one, so that the other pictures are what they were before it.
    if settings["validation"]:
      splits.append(("validation/good", "good", settings["validation"]))
    for split, (folder, defect, count) in enumerate(splits):
      pictures = root / category / folder
      pictures.mkdir(parents=True)
      masks = root / category / "ground_truth" / defect
      if defect != "good":
        masks.mkdir(parents=True)
      for index in range(count):
        image, mask = make_sample(
          category,
          defect,
          seed=settings["seed"],
          split=split,
          index=index,
          image_size=settings["image_size"],
        )
        _save_png(image, pictures / f"{index:03d}.png")
        if defect != "good":
          _save_png(mask, masks / f"{index:03d}_mask.png")


def _save_png(pixels: np.ndarray, path: pathlib.Path) -> None:
  # Noise hardly compresses; level 1 takes a third of the time of the default 6.
  Image.fromarray(pixels).save(path, compress_level=1)
