"""The layout of MVTec-AD: a folder on disk -> records.

ROOT/<category>/train/good/NAME.png
ROOT/<category>/test/good/NAME.png
ROOT/<category>/test/<defect>/NAME.png
ROOT/<category>/ground_truth/<defect>/NAME_mask.png  (or NAME.png)
"""

import os
import pathlib
from collections.abc import Sequence

from inp_former_jax.data.layouts.tree import (
  absolute,
  find_categories,
  labelled_records,
  select_categories,
  subfolders,
  training_records,
)
from inp_former_jax.data.records import Dataset, Record

PARTS = ("train", "test", "ground_truth")
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
      not there, has nothing to train on or defects among it, or its masks are
      ambiguous.
  """
  root = absolute(root)
  present = find_categories(root, PARTS, LAYOUT)
  train, test = [], []
  for name, folder in select_categories(root, present, categories).items():
    train += training_records(folder, name, LAYOUT)
    test += _test_records(folder, name)
  return Dataset(root.name, tuple(train), tuple(test))


def _test_records(folder: pathlib.Path, category: str) -> list[Record]:
  test = folder / "test"
  kinds = subfolders(test) if test.is_dir() else []
  return labelled_records(kinds, folder / "ground_truth", category)
