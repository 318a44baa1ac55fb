"""The layout of BTAD (beanTech): a folder on disk -> records.

ROOT/<category>/train/ok/NAME.{bmp,png}
ROOT/<category>/test/{ok,ko}/NAME.{bmp,png}
ROOT/<category>/ground_truth/ko/NAME.{png,bmp}

The categories are 01, 02 and 03. Images are .bmp in 01 and 03 and .png in 02,
masks .png in 01 and 02 and .bmp in 03.
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
    root: Folder of the categories (BTech_Dataset_transformed), the folder that
      holds it, or the folder of a single category.
    categories: Names of those to read, in this order; all, by name, if empty.

  Returns:
    The records, by category and then by path; "ok" becomes "good". Without a
    folder `test` a category has no test records.

  Raises:
    DataError: The folder is not there or not in this layout, a category is
      not there, has nothing to train on or defects among it, there are test
      images that are neither ok nor ko, or the masks are ambiguous.
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
