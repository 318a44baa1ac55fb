"""Reads a folder in the layout of MVTec LOCO AD into records.

ROOT/<category>/train/good/NAME.png
ROOT/<category>/validation/good/NAME.png
ROOT/<category>/test/good/NAME.png
ROOT/<category>/test/{logical_anomalies,structural_anomalies}/NAME.png
ROOT/<category>/ground_truth/<anomalies>/NAME/{000,001,...}.png

A defective image has a folder of masks, one mask for each of its defects. The
values of a mask tell the kind of defect; all pixels but 0 are defective.
"""

import os
import pathlib
from collections.abc import Sequence

from inp_former_jax.data.errors import DataError
from inp_former_jax.data.layouts.listing import (
  folder_exists,
  images_of,
  subfolders,
)
from inp_former_jax.data.layouts.tree import (
  absolute,
  find_categories,
  normal_records,
  select_categories,
  training_records,
)
from inp_former_jax.data.records import NON_ZERO, Dataset, Record

PARTS = ("train", "test", "validation", "ground_truth")
LAYOUT = (
  "expected <category>/train/good/, <category>/test/<anomalies>/ and "
  "<category>/ground_truth/<anomalies>/<image>/ (the layout of MVTec LOCO AD)"
)


def read_mvtec_loco(
  root: str | os.PathLike, categories: Sequence[str] = ()
) -> Dataset:
  """Reads a folder in the layout of MVTec LOCO AD.

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
      ones among its training or validation images, or if the masks are not in
      folders that belong to one image each.
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
  records = []
  test = folder / "test"
  for kind in subfolders(test) if folder_exists(test) else []:
    images = images_of(kind)
    if kind.name == "good":
      records += [Record(image, category, 0, "good") for image in images]
    else:
      masks = _match_mask_folders(images, folder / "ground_truth" / kind.name)
      records += [
        Record(
          image,
          category,
          1,
          kind.name,
          masks.get(image, ()),
          mask_values=NON_ZERO,
        )
        for image in images
      ]
  return records


def _match_mask_folders(
  images: Sequence[pathlib.Path], truth: pathlib.Path
) -> dict[pathlib.Path, tuple[pathlib.Path, ...]]:
  """Returns the masks of each image that has any."""
  folders = _mask_folders(truth)
  owners = {}
  for image in images:
    if image.stem not in folders:
      continue
    other = owners.setdefault(image.stem, image)
    if other != image:
      raise DataError(
        f"The masks in {folders[image.stem]} belong to {other} or to {image}: "
        "their names differ only in the extension. Rename one of the two "
        "images."
      )
  if folders and images and not owners:
    raise DataError(
      f"None of the {len(folders)} folders of masks in {truth} belongs to an "
      f"image, e.g. {next(iter(folders))}; expected names like "
      f"{images[0].stem} for {images[0]}. Rename them, or remove them to "
      "evaluate image-wise only."
    )
  return {image: _masks_in(folders[stem]) for stem, image in owners.items()}


def _mask_folders(truth: pathlib.Path) -> dict[str, pathlib.Path]:
  """Returns the folder of masks by image name; empty if `truth` is absent."""
  if not folder_exists(truth):
    return {}
  files = images_of(truth)
  if files:
    raise DataError(
      f"{truth} holds files, e.g. {files[0].name}; expected a folder of masks "
      "for each image, e.g. 000/000.png for 000.png. If every image has one "
      "mask, set `layout`=mvtec."
    )
  return {folder.name: folder for folder in subfolders(truth)}


def _masks_in(folder: pathlib.Path) -> tuple[pathlib.Path, ...]:
  masks = tuple(images_of(folder))
  if not masks:
    raise DataError(
      f"{folder} has no masks; expected 000.png and so on, the masks of one "
      "image. Unpack the archive again, or remove the folder to evaluate the "
      "image image-wise only."
    )
  return masks
