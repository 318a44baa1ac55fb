"""What the layouts share: folders, images, and the masks of images."""

import difflib
import os
import pathlib
from collections.abc import Sequence
from typing import TypeVar

from inp_former_jax.data.records import DataError

EXTENSIONS = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")

_Value = TypeVar("_Value")


def absolute(root: str | os.PathLike) -> pathlib.Path:
  """The folder of a data set as an absolute path, `~` expanded."""
  return pathlib.Path(os.path.abspath(os.path.expanduser(root)))


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
