"""The layout of MVTec-AD: a folder on disk -> records.

ROOT/<category>/train/good/NAME.png
ROOT/<category>/test/good/NAME.png
ROOT/<category>/test/<defect>/NAME.png
ROOT/<category>/ground_truth/<defect>/NAME_mask.png  (or NAME.png)
"""

import os
import pathlib
from collections.abc import Sequence

from inp_former_jax.data.folders import (
  EXTENSIONS,
  absolute,
  images_of,
  match_masks,
  select_categories,
  subfolders,
)
from inp_former_jax.data.records import DataError, Dataset, Record

LAYOUT = (
  "expected <category>/train/good/, <category>/test/<defect>/ and "
  "<category>/ground_truth/<defect>/ (the layout of MVTec-AD)"
)


def read_mvtec(
  root: str | os.PathLike, categories: Sequence[str] = ()
) -> Dataset:
  """Reads a folder in the layout of MVTec-AD.

  Args:
    root: Folder of the categories, or the folder of a single one.
    categories: Names of those to read, in this order; all, by name, if empty.

  Returns:
    The records, by category and then by path. Without a folder `test` a
    category has no test records.

  Raises:
    DataError: The folder is not there or not in this layout, a category is
      not there or has nothing to train on, or its masks are ambiguous.
  """
  root = absolute(root)
  folders = select_categories(root, _categories(root), categories)
  names = tuple(folders)
  train = [r for name in names for r in _train_records(folders[name], name)]
  test = [r for name in names for r in _test_records(folders[name], name)]
  return Dataset(root.name, tuple(train), tuple(test))


def _categories(root: pathlib.Path) -> dict[str, pathlib.Path]:
  """Category -> its folder, sorted by name."""
  if not root.is_dir():
    found = "is not a folder" if root.exists() else "does not exist"
    raise DataError(f"{root} {found}; {LAYOUT}. Check config.data.root.")
  if (root / "train" / "good").is_dir() or (root / "test").is_dir():
    return {root.name: root}
  folders = {
    folder.name: folder
    for folder in subfolders(root)
    if any((folder / p).is_dir() for p in ("train", "test", "ground_truth"))
  }
  if not folders:
    found = ", ".join(folder.name for folder in subfolders(root)[:8])
    raise DataError(
      f"{root} holds no category: {LAYOUT}, found "
      f"{'the folders ' + found if found else 'no folder at all'}. Point "
      "config.data.root at the folder that holds the categories."
    )
  return folders


def _train_records(folder: pathlib.Path, category: str) -> list[Record]:
  good = folder / "train" / "good"
  if not good.is_dir():
    raise DataError(
      f"{folder} is a category without train/good; {LAYOUT}. Put normal "
      f"images into {good}, or leave this category out with "
      "config.data.categories."
    )
  images = images_of(good)
  if not images:
    raise DataError(
      f"{good} has no images; expected files ending in "
      f"{', '.join(EXTENSIONS)}. Put normal images there."
    )
  return [Record(image, category, 0, "good") for image in images]


def _test_records(folder: pathlib.Path, category: str) -> list[Record]:
  records = []
  if not (folder / "test").is_dir():
    return records
  for kind in subfolders(folder / "test"):
    images = images_of(kind)
    if kind.name == "good":
      records += [Record(image, category, 0, "good") for image in images]
    else:
      masks = match_masks(images, folder / "ground_truth" / kind.name)
      records += [
        Record(image, category, 1, kind.name, masks.get(image, ()))
        for image in images
      ]
  return records
