"""Parts that the layouts share: finding categories, images and their masks."""

import difflib
import os
import pathlib
from collections.abc import Sequence
from typing import TypeVar

from inp_former_jax.buckets import mount_hint, scheme_of
from inp_former_jax.data.errors import DataError
from inp_former_jax.data.image_files import EXTENSIONS
from inp_former_jax.data.layouts.listing import (
  folder_exists,
  images_of,
  subfolders,
)
from inp_former_jax.data.records import Record

_Value = TypeVar("_Value")


def absolute(root: str | os.PathLike) -> pathlib.Path:
  """Returns the folder of a data set as an absolute path with `~` expanded.

  Args:
    root: The folder; it may be missing.

  Raises:
    DataError: If it is an address such as gs://bucket.
  """
  path = pathlib.Path(os.path.abspath(os.path.expanduser(root)))
  scheme = scheme_of(root)
  if scheme:
    raise DataError(
      f"`root`={root} is in a bucket, whose images cannot be read. "
      f"{mount_hint(scheme)}"
    )
  return path


def find_categories(
  root: pathlib.Path, parts: Sequence[str], layout: str, normal: str = "good"
) -> dict[str, pathlib.Path]:
  """Finds the folders of the categories in the folder of a data set.

  Args:
    root: The folder of the categories, or of a single category; absolute.
    parts: The folders that a category may have: first that of the training
      images, then that of the test images, then any others.
    layout: A description of the expected layout, for the errors.
    normal: The name of the folder of normal images among the training images.

  Returns:
    A dict from each category to its folder, sorted by name.

  Raises:
    DataError: If the root is not a folder or holds no category.
  """
  if not root.is_dir():
    found = "is not a folder" if root.exists() else "does not exist"
    raise DataError(f"{root} {found}; {layout}. Check `root`.")
  train, test = parts[:2]
  folders = subfolders(root)
  # root / train alone does not decide, as a category may be called "train".
  if (root / train / normal).is_dir() or (root / test).is_dir():
    return {root.name: root}
  categories = {
    folder.name: folder
    for folder in folders
    if not {inner.name for inner in subfolders(folder)}.isdisjoint(parts)
  }
  if not categories:
    found = ", ".join(folder.name for folder in folders[:8])
    raise DataError(
      f"{root} holds no category: {layout}, found "
      f"{'the folders ' + found if found else 'no folder at all'}. Point "
      "`root` at the folder that holds the categories."
    )
  return categories


def select_categories(
  root: pathlib.Path,
  present: dict[str, _Value],
  categories: Sequence[str] | str = (),
) -> dict[str, _Value]:
  """Selects categories by name, in the order of the names.

  Args:
    root: The folder of the data set, for the error.
    present: A dict from each category of the data set to any value.
    categories: The names of the categories to select; all of them if empty.

  Returns:
    The selected part of `present`.

  Raises:
    DataError: If the data set has no such category; suggests the nearest name.
  """
  if isinstance(categories, str):
    categories = (categories,)
  for name in categories:
    if name not in present:
      nearest = difflib.get_close_matches(name, present, n=1)
      raise DataError(
        f"{root} has no category {name!r}; it has {', '.join(present)}. "
        + (f"Did you mean {nearest[0]!r}? " if nearest else "")
        + "Fix `categories`."
      )
  return {name: present[name] for name in categories or present}


def training_records(
  folder: pathlib.Path, category: str, layout: str, normal: str = "good"
) -> list[Record]:
  """Returns the records of the training images of a category.

  Args:
    folder: The folder of the category.
    category: The name of the category.
    layout: A description of the expected layout, for the errors.
    normal: The name of the folder in `folder/train` that holds the images.

  Returns:
    The records, at least one.

  Raises:
    DataError: If there is no image, or if `train` holds images elsewhere.
  """
  good = folder / "train" / normal
  if not folder_exists(good):
    raise DataError(
      f"{folder} is a category without train/{normal}; {layout}. Put normal "
      f"images into {good}, or leave this category out with `categories`."
    )
  records = normal_records(folder / "train", category, normal)
  if not records:
    raise DataError(
      f"{good} has no images; expected files ending in "
      f"{', '.join(EXTENSIONS)}. Put normal images there."
    )
  return records


def normal_records(
  split: pathlib.Path, category: str, normal: str = "good"
) -> list[Record]:
  """Returns the records of a split that may hold only normal images.

  Args:
    split: The folder of the training or validation images; may be absent.
    category: The name of the category.
    normal: The name of the folder in `split` that holds the images.

  Returns:
    The records; none if the split is absent.

  Raises:
    DataError: If the split holds images that are not in its folder `normal`.
  """
  if not folder_exists(split):
    return []
  misplaced = _image_outside(split, (normal,))
  if misplaced:
    use = "training" if split.name == "train" else split.name
    raise DataError(
      f"{misplaced.parent} holds images, e.g. {misplaced.name}; {use} images "
      f"must be normal and lie in {split / normal}. Move the normal ones "
      "there and the defective ones to the test images, or remove them."
    )
  good = split / normal
  images = images_of(good) if folder_exists(good) else []
  return [Record(image, category, 0, "good") for image in images]


def named_folders(
  test: pathlib.Path, names: Sequence[str], layout: str
) -> list[pathlib.Path]:
  """Returns the folders of test images in a layout that prescribes their names.

  Args:
    test: The folder that holds them; may be absent.
    names: The names that the layout allows.
    layout: A description of the expected layout, for the error.

  Returns:
    The folders that exist, sorted by name.

  Raises:
    DataError: If there are images elsewhere, because the layout does not tell
      whether they are normal.
  """
  if not folder_exists(test):
    return []
  misplaced = _image_outside(test, names)
  if misplaced:
    raise DataError(
      f"{misplaced.parent} holds images, e.g. {misplaced.name}; {layout}. "
      f"Move them to {' or '.join(str(test / name) for name in names)}."
    )
  return [folder for folder in subfolders(test) if folder.name in names]


def labelled_records(
  folders: Sequence[pathlib.Path],
  truth: pathlib.Path,
  category: str,
  normal: str = "good",
) -> list[Record]:
  """Returns the records of the test images of a category.

  Args:
    folders: The folder of normal images and one folder per kind of defect.
    truth: The folder of the masks, with a folder for each kind of defect; may
      be absent.
    category: The name of the category.
    normal: The name of the folder of normal images.

  Returns:
    The records; the kind of defect is the name of the folder.

  Raises:
    DataError: If the masks are ambiguous, see `match_masks`.
  """
  records = []
  for folder in folders:
    images = images_of(folder)
    if folder.name == normal:
      records += [Record(image, category, 0, "good") for image in images]
    else:
      masks = match_masks(images, truth / folder.name)
      records += [
        Record(image, category, 1, folder.name, masks.get(image, ()))
        for image in images
      ]
  return records


def _image_outside(
  split: pathlib.Path, names: Sequence[str]
) -> pathlib.Path | None:
  """Finds an image of a split that is in none of its folders of these names."""
  others = [entry for entry in subfolders(split) if entry.name not in names]
  for folder in [split, *others]:
    images = images_of(folder)
    if images:
      return images[0]
  return None


def match_masks(
  images: Sequence[pathlib.Path], folder: pathlib.Path
) -> dict[pathlib.Path, tuple[pathlib.Path, ...]]:
  """Finds the masks of images by their names.

  Args:
    images: The images of one folder.
    folder: The folder of the masks, which are called NAME.<ext> or
      NAME_mask.<ext>; may be absent.

  Returns:
    A dict from each image that has a mask to a tuple of that mask.

  Raises:
    DataError: If an image has two masks, if a mask has two images, or if there
      are masks but none of them belongs to an image.
  """
  if not folder_exists(folder):
    return {}
  by_stem = {}
  for image in images:
    by_stem.setdefault(image.stem, []).append(image)
  masks = {}
  files = images_of(folder)
  for mask in files:
    image = _owner(mask, by_stem)
    if image in masks:
      raise DataError(
        f"{image} has two masks, {masks[image][0]} and {mask}; expected one. "
        "Remove the wrong one."
      )
    if image is not None:
      masks[image] = (mask,)
  if files and images and not masks:
    raise DataError(
      f"None of the {len(files)} masks in {folder} belongs to an image, e.g. "
      f"{files[0].name}; expected names like {images[0].stem}_mask.png for "
      f"{images[0]}. Rename them, or remove them to evaluate image-wise only."
    )
  return masks


def _owner(
  mask: pathlib.Path, by_stem: dict[str, list[pathlib.Path]]
) -> pathlib.Path | None:
  """Returns the image that a mask belongs to, or None."""
  owners = by_stem.get(mask.stem) or by_stem.get(
    mask.stem.removesuffix("_mask"), [None]
  )
  if len(owners) > 1:
    raise DataError(
      f"{mask} belongs to {owners[0]} or to {owners[1]}: their names differ "
      "only in the extension. Rename one of the two images."
    )
  return owners[0]
