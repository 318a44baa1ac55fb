"""What the layouts share: folders, images, and the masks of images."""

import difflib
import os
import pathlib
from collections.abc import Sequence
from typing import TypeVar

from inp_former_jax.data.errors import DataError
from inp_former_jax.data.records import Record

EXTENSIONS = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")

_Value = TypeVar("_Value")


def absolute(root: str | os.PathLike) -> pathlib.Path:
  """The folder of a data set as an absolute path, `~` expanded."""
  return pathlib.Path(os.path.abspath(os.path.expanduser(root)))


def find_categories(
  root: pathlib.Path, parts: Sequence[str], layout: str, normal: str = "good"
) -> dict[str, pathlib.Path]:
  """The folders of the categories in the folder of a data set.

  Args:
    root: Absolute; holds the categories, or is that of a single one.
    parts: The folders a category may have: that to train on, that to test on,
      and others.
    layout: What is expected, for the errors.
    normal: The folder of normal images in that to train on.

  Returns:
    Category -> its folder, sorted by name.

  Raises:
    DataError: The root is no folder, or no category is in it.
  """
  if not root.is_dir():
    found = "is not a folder" if root.exists() else "does not exist"
    raise DataError(f"{root} {found}; {layout}. Check config.data.root.")
  train, test = parts[:2]
  # Not by root / train alone: a category may be called "train".
  if (root / train / normal).is_dir() or (root / test).is_dir():
    return {root.name: root}
  folders = {
    folder.name: folder
    for folder in subfolders(root)
    if any((folder / part).is_dir() for part in parts)
  }
  if not folders:
    found = ", ".join(folder.name for folder in subfolders(root)[:8])
    raise DataError(
      f"{root} holds no category: {layout}, found "
      f"{'the folders ' + found if found else 'no folder at all'}. Point "
      "config.data.root at the folder that holds the categories."
    )
  return folders


def select_categories(
  root: pathlib.Path,
  present: dict[str, _Value],
  categories: Sequence[str] | str = (),
) -> dict[str, _Value]:
  """The categories asked for, in that order.

  Args:
    root: Of the data set, for the error.
    present: Category -> anything, of all that are there.
    categories: Names of those wanted; all if empty.

  Returns:
    The chosen part of `present`.

  Raises:
    DataError: One of them is not there; the nearest name is suggested.
  """
  if isinstance(categories, str):
    categories = (categories,)
  for name in categories:
    if name not in present:
      nearest = difflib.get_close_matches(name, present, n=1)
      raise DataError(
        f"{root} has no category {name!r}; it has {', '.join(present)}. "
        + (f"Did you mean {nearest[0]!r}? " if nearest else "")
        + "Mend config.data.categories."
      )
  return {name: present[name] for name in categories or present}


def training_records(
  folder: pathlib.Path, category: str, layout: str, normal: str = "good"
) -> list[Record]:
  """The images of a category to train on.

  Args:
    folder: Of the category.
    category: Its name.
    layout: What is expected, for the errors.
    normal: The folder in `folder/train` that has the images.

  Returns:
    At least one record.

  Raises:
    DataError: There is no image, or `train` holds others than normal ones.
  """
  good = folder / "train" / normal
  if not good.is_dir():
    raise DataError(
      f"{folder} is a category without train/{normal}; {layout}. Put normal "
      f"images into {good}, or leave this category out with "
      "config.data.categories."
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
  """The images of a split that may hold normal ones only.

  Args:
    split: Folder to train on or to validate on; may be absent.
    category: Whose it is.
    normal: The folder in it that has the images.

  Returns:
    Their records.

  Raises:
    DataError: The split holds images that are not in its folder `normal`.
  """
  if not split.is_dir():
    return []
  misplaced = _image_outside(split, (normal,))
  if misplaced:
    use = "training" if split.name == "train" else split.name
    raise DataError(
      f"{misplaced.parent} holds images, e.g. {misplaced.name}; {use} images "
      f"must be normal and lie in {split / normal}. Move the normal ones "
      "there and those with defects to the test images, or remove them."
    )
  good = split / normal
  images = images_of(good) if good.is_dir() else []
  return [Record(image, category, 0, "good") for image in images]


def named_folders(
  test: pathlib.Path, names: Sequence[str], layout: str
) -> list[pathlib.Path]:
  """The folders of test images where their names are laid down.

  Args:
    test: Folder with them; may be absent.
    names: Those that may be there.
    layout: What is expected, for the error.

  Returns:
    Those that are there, by name.

  Raises:
    DataError: There are images elsewhere, of which the layout does not say
      whether they are normal.
  """
  if not test.is_dir():
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
  """The test images of a category.

  Args:
    folders: One of normal images, and one for each kind of defect.
    truth: Folder of the masks, with a folder for each kind of defect; may be
      absent.
    category: Its name.
    normal: Which of the folders has the normal images.

  Returns:
    Their records; the kind of defect is the name of its folder.

  Raises:
    DataError: The masks are ambiguous, see `match_masks`.
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
  """An image in a split that is in none of its folders of these names."""
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
    images: Of one folder.
    folder: With the masks, NAME.<ext> or NAME_mask.<ext>; may be absent.

  Returns:
    Image -> its mask, for the images that have one.

  Raises:
    DataError: An image has two masks, a mask two images, or there are masks
      and none of them belongs to an image.
  """
  if not folder.is_dir():
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
  """The image a mask belongs to; None if there is none."""
  owners = by_stem.get(mask.stem) or by_stem.get(
    mask.stem.removesuffix("_mask"), [None]
  )
  if len(owners) > 1:
    raise DataError(
      f"{mask} belongs to {owners[0]} or to {owners[1]}: their names differ "
      "only in the extension. Rename one of the two images."
    )
  return owners[0]


def subfolders(folder: pathlib.Path) -> list[pathlib.Path]:
  """The folders in a folder, by name, without hidden ones."""
  return sorted(
    entry
    for entry in folder.iterdir()
    if entry.is_dir() and not entry.name.startswith(".")
  )


def images_of(folder: pathlib.Path) -> list[pathlib.Path]:
  """The image files in a folder, by name, without hidden ones."""
  return sorted(
    entry
    for entry in folder.iterdir()
    if entry.suffix.lower() in EXTENSIONS
    and not entry.name.startswith(".")
    and entry.is_file()
  )
