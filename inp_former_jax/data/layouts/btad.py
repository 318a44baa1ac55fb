"""Reads a folder in the layout of BTAD (beanTech) into records.

ROOT/<category>/train/ok/NAME.{bmp,png}
ROOT/<category>/test/{ok,ko}/NAME.{bmp,png}
ROOT/<category>/ground_truth/ko/NAME.{png,bmp}

The categories are 01, 02 and 03. The images are .bmp files in 01 and 03 and
.png files in 02; the masks are .png files in 01 and 02 and .bmp files in 03.
"""

import os
import pathlib
from collections.abc import Sequence

from inp_former_jax.data.layouts.tree import (
  absolute,
  find_categories,
  labelled_records,
  named_folders,
  select_categories,
  training_records,
)
from inp_former_jax.data.records import Dataset, Record

ARCHIVE_FOLDER = "BTech_Dataset_transformed"
NORMAL, DEFECT = "ok", "ko"
PARTS = ("train", "test", "ground_truth")
LAYOUT = (
  "expected <category>/train/ok/, <category>/test/{ok,ko}/ and "
  "<category>/ground_truth/ko/ (the layout of BTAD)"
)


def read_btad(
  root: str | os.PathLike, categories: Sequence[str] = ()
) -> Dataset:
  """Reads a folder in the layout of BTAD.

  Args:
    root: The folder of the categories (BTech_Dataset_transformed), the folder
      that holds it, or the folder of a single category.
    categories: The names of the categories to read, in this order; if empty,
      all of them, sorted by name.

  Returns:
    The records, ordered by category and then by path; "ok" becomes "good". A
    category without a folder `test` has no test records.

  Raises:
    DataError: If the folder or a category does not exist, if the folder is not
      in this layout, if a category has no training images or has defective
      ones among them, if test images are neither ok nor ko, or if the masks
      are ambiguous.
  """
  root = absolute(root)
  if (root / ARCHIVE_FOLDER).is_dir():
    root = root / ARCHIVE_FOLDER
  present = find_categories(root, PARTS, LAYOUT, NORMAL)
  train, test = [], []
  for name, folder in select_categories(root, present, categories).items():
    train += training_records(folder, name, LAYOUT, NORMAL)
    test += _test_records(folder, name)
  return Dataset(root.name, tuple(train), tuple(test))


def _test_records(folder: pathlib.Path, category: str) -> list[Record]:
  kinds = named_folders(folder / "test", (NORMAL, DEFECT), LAYOUT)
  return labelled_records(kinds, folder / "ground_truth", category, NORMAL)
