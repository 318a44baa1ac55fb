"""Reads a folder in the layout of MVTec AD 2 into records.

ROOT/<category>/train/good/NAME.png
ROOT/<category>/validation/good/NAME.png
ROOT/<category>/test_public/{good,bad}/NAME.png
ROOT/<category>/test_public/ground_truth/bad/NAME_mask.png
ROOT/<category>/test_private/NAME.png
ROOT/<category>/test_private_mixed/NAME.png

The labels of the private test images are known only to the publishers' server.
"""

import os
import pathlib
from collections.abc import Sequence

from inp_former_jax.data.layouts.listing import (
  folder_exists,
  images_of,
)
from inp_former_jax.data.layouts.tree import (
  absolute,
  find_categories,
  labelled_records,
  named_folders,
  normal_records,
  select_categories,
  training_records,
)
from inp_former_jax.data.records import Dataset, Record

PRIVATE = ("test_private", "test_private_mixed")
PARTS = ("train", "test_public", "validation", *PRIVATE)
LAYOUT = (
  "expected <category>/train/good/, <category>/test_public/{good,bad}/ and "
  "<category>/test_public/ground_truth/bad/ (the layout of MVTec AD 2)"
)


def read_mvtec_ad2(
  root: str | os.PathLike, categories: Sequence[str] = ()
) -> Dataset:
  """Reads a folder in the layout of MVTec AD 2.

  Args:
    root: The folder of the categories, or the folder of a single category.
    categories: The names of the categories to read, in this order; if empty,
      all of them, sorted by name.

  Returns:
    The records, ordered by category and then by path. The public test images
    are in `test`; the private ones are in `unlabelled`, with the name of their
    folder as their defect. Only the folder `train` must exist.

  Raises:
    DataError: If the folder or a category does not exist, if the folder is not
      in this layout, if a category has no training images or has defective
      ones among its training or validation images, if public test images are
      neither good nor bad, or if the masks are ambiguous.
  """
  root = absolute(root)
  present = find_categories(root, PARTS, LAYOUT)
  train, test, validation, unlabelled = [], [], [], []
  for name, folder in select_categories(root, present, categories).items():
    train += training_records(folder, name, LAYOUT)
    validation += normal_records(folder / "validation", name)
    test += _public_records(folder / "test_public", name)
    for part in PRIVATE:
      unlabelled += _private_records(folder / part, name)
  return Dataset(
    root.name,
    tuple(train),
    tuple(test),
    validation=tuple(validation),
    unlabelled=tuple(unlabelled),
  )


def _public_records(public: pathlib.Path, category: str) -> list[Record]:
  kinds = named_folders(public, ("good", "bad"), LAYOUT)
  return labelled_records(kinds, public / "ground_truth", category)


def _private_records(private: pathlib.Path, category: str) -> list[Record]:
  images = images_of(private) if folder_exists(private) else []
  return [Record(image, category, 0, private.name) for image in images]
