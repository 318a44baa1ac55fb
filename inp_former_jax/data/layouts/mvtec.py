"""Reads a folder in the layout of MVTec-AD into records.

ROOT/<category>/train/good/NAME.png
ROOT/<category>/validation/good/NAME.png             (optional, not in MVTec-AD)
ROOT/<category>/test/good/NAME.png
ROOT/<category>/test/<defect>/NAME.png
ROOT/<category>/ground_truth/<defect>/NAME_mask.png  (or NAME.png)
"""

import os
import pathlib
from collections.abc import Sequence

from inp_former_jax.data.layouts.listing import (
  folder_exists,
  subfolders,
)
from inp_former_jax.data.layouts.tree import (
  absolute,
  find_categories,
  labelled_records,
  normal_records,
  select_categories,
  training_records,
)
from inp_former_jax.data.records import Dataset, Record

PARTS = ("train", "test", "validation", "ground_truth")
LAYOUT = (
  "expected <category>/train/good/, <category>/test/<defect>/ and "
  "<category>/ground_truth/<defect>/ (the layout of MVTec-AD)"
)


def read_mvtec(
  root: str | os.PathLike, categories: Sequence[str] = ()
) -> Dataset:
  """Reads a folder in the layout of MVTec-AD.

  Args:
    root: The folder of the categories, or the folder of a single category.
    categories: The names of the categories to read, in this order; if empty,
      all of them, sorted by name.

  Returns:
    The records, ordered by category and then by path. A category without a
    folder `test` has no test records, and one without a folder `validation` no
    validation records.

  Raises:
    DataError: If the folder or a category does not exist, if the folder is not
      in this layout, if a category has no training images or has defective
      ones among its training or validation images, or if its masks are
      ambiguous.
  """
  root = absolute(root)
  present = find_categories(root, PARTS, LAYOUT)
  train, test, validation = [], [], []
  for name, folder in select_categories(root, present, categories).items():
    train += training_records(folder, name, LAYOUT)
    validation += normal_records(folder / "validation", name)
    test += _test_records(folder, name)
  return Dataset(
    root.name, tuple(train), tuple(test), validation=tuple(validation)
  )


def _test_records(folder: pathlib.Path, category: str) -> list[Record]:
  test = folder / "test"
  kinds = subfolders(test) if folder_exists(test) else []
  return labelled_records(kinds, folder / "ground_truth", category)
