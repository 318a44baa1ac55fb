"""A procedural demo data set in the layout of MVTec AD.

Three kinds of part, each with the variation that good parts have and with four
kinds of defect whose masks are exact, drawn from a seed:

  root/demo.json                              the arguments and the format
  root/<category>/train/good/000.png
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

from inp_former_jax.data.demo import board, cloth, drawing, washer

_PARTS = {"washer": washer, "cloth": cloth, "board": board}

CATEGORIES: tuple[str, ...] = tuple(_PARTS)
DEFECTS: dict[str, tuple[str, ...]] = {
  category: tuple(part.DEFECTS) for category, part in _PARTS.items()
}

# What the camera sees of a part, if not all of it: left, top and side in units
# of the part's 1/256. It stands so near to the board that the place of a lost
# resistor is more than the anomaly map's top percent, which makes the score.
_VIEWS = {"board": (54.0, 20.0, 184.0)}

# Raise it whenever the same arguments give other pictures.
_FORMAT_VERSION = 4
_MIN_IMAGE_SIZE = 64
_VISIBLE = 0.1  # share of a pixel from which a defect counts as there
_LEAST_AREA = 12.0 / 256**2  # of a region, as a share of the picture's area
_TRIES = 100  # at a defect in the window, of which most need one
_TRAIN, _TEST_GOOD = 0, 1  # split numbers; each defect's test split follows


def make_sample(
  category: str,
  defect: str = "good",
  *,
  seed: int = 0,
  split: int = 0,
  index: int = 0,
  image_size: int = 256,
) -> tuple[np.ndarray, np.ndarray]:
  """Makes one picture and its mask.

  A sample depends on its own arguments only, not on how many others are made.
  The same seed, split and index give the same part in the same light for every
  `defect`: outside the mask the picture equals that of the good part. A mask
  has no specks, and all of it lies in the picture's middle
  (`drawing.WINDOW`).

  Args:
    category: one of `CATEGORIES`.
    defect: "good" or one of `DEFECTS[category]`.
    seed: of the data set, not negative.
    split: number of the split, not negative.
    index: number of the picture in its split, not negative.
    image_size: side in pixels, 64 or more.

  Returns:
    image uint8 (H, W, 3) and mask uint8 (H, W), 255 where the defect is.
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
    # kept in float32, or pixels outside the mask might round the other way
    spoilt = spoilt.astype(np.float32)
    radiance = np.where(mask[..., None], spoilt, radiance)
  exposure = np.clip(radiance * gain + noise, 0.0, 1.0)
  image = (255.0 * exposure + 0.5).astype(np.uint8)
  return image, np.where(mask, 255, 0).astype(np.uint8)


def _view(category: str, image_size: int) -> tuple[int, tuple[slice, slice]]:
  """Size to draw a part at, and the rows and columns that the camera sees."""
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
  """Draws a defect until the window holds all of it.

  Args:
    draw: one of a part module's `DEFECTS`.
    part: the good part.
    seen: its rows and columns in the picture.
    rng: draws the defect.

  Returns:
    radiance (H, W, 3) and mask bool (H, W), where the former is to be seen.
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
  """Drops small regions (8-connected), which a region's score would count."""
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
) -> pathlib.Path:
  """Writes the demo data set, whole or not at all, unless it is there already.

  Several processes may call it at once with the same arguments: each writes
  beside `root`, the first to finish renames its folder and the others drop
  theirs.

  Args:
    root: folder to make; its parents are made too.
    seed: same seed, same files, bit for bit.
    image_size: side of the pictures in pixels, 64 or more.
    train: good pictures to learn from, per category.
    test_good: good pictures to test on, per category.
    test_per_defect: pictures per kind of defect, per category.

  Returns:
    The absolute path of `root`.

  Raises:
    ValueError: a number is out of range, or `root` holds anything other than
      this very data set. Nothing is overwritten.
  """
  settings = {
    "format_version": _FORMAT_VERSION,
    "seed": seed,
    "image_size": image_size,
    "train": train,
    "test_good": test_good,
    "test_per_defect": test_per_defect,
  }
  _check_settings(settings)
  root = pathlib.Path(root).expanduser().resolve()
  if _is_written(root, settings):
    return root
  root.parent.mkdir(parents=True, exist_ok=True)
  # beside root, for a rename is atomic only within one file system
  temporary = root.with_name(f".{root.name}.{uuid.uuid4().hex}")
  temporary.mkdir()
  try:
    _write_pictures(temporary, settings)
    (temporary / "demo.json").write_text(json.dumps(settings, indent=2) + "\n")
    try:
      temporary.rename(root)
    except OSError:
      # another process was first; then its data set must be the same
      if not _is_written(root, settings):
        raise
  finally:
    shutil.rmtree(temporary, ignore_errors=True)
  return root


def _check_settings(settings: dict[str, int]) -> None:
  least = {"seed": 0, "image_size": _MIN_IMAGE_SIZE}
  for name, value in settings.items():
    minimum = least.get(name, 1)
    if not isinstance(value, int) or value < minimum:
      raise ValueError(
        f"{name} is {value!r}, expected a whole number, {minimum} or more."
      )


def _is_written(root: pathlib.Path, settings: dict[str, int]) -> bool:
  """Says whether `root` is this data set; raises if it is something else."""
  if not root.exists() or (root.is_dir() and not any(root.iterdir())):
    return False
  advice = "Name another folder, or remove this one and run again."
  if not root.is_dir():
    raise ValueError(f"{root} is a file, expected a folder to make. {advice}")
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
  if found != settings:
    raise ValueError(
      f"{root} holds another demo data set: {record.name} says {found}, "
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
  # noise hardly compresses: level 1 takes a third of the time of the usual 6
  Image.fromarray(pixels).save(path, compress_level=1)
