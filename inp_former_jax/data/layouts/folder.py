"""The layout of your own images, sorted into folders: a folder -> records.

ROOT/normal/NAME.png              or good/, ok/
ROOT/defect/NAME.png              or anomaly/, bad/, ng/, abnormal/; optional
ROOT/defect/<kind>/NAME.png       where the kind of defect is known
ROOT/mask/NAME_mask.png           (or NAME.png) or masks/, ground_truth/
ROOT/mask/<kind>/NAME_mask.png    where images of two kinds have one name
ROOT/test_normal/NAME.png         or test_good/, test_ok/; optional

Upper and lower case do not matter ("OK", "NG"). ROOT may also hold several such
folders, one for each category; or only images, which are then normal; or a list
of its files, which takes precedence over all this (`split_file`). Any other
folder of images is an error: otherwise defects in a folder of an unknown name
would silently be left out or trained on.

An image AUROC needs normal images to test on. These are
- all of test_normal/, if there is such a folder;
- otherwise, if there are defective images, about every fifth of normal/, at
  least one of two. The hash of its name decides for each image on its own, so
  that adding images does not change the choice for the others. (Among a handful
  of images all hashes or none may say "test"; then the smallest one decides.)
- otherwise none: all images are trained on, and there is no test set.
"""

import difflib
import os
import pathlib
from collections.abc import Sequence

from inp_former_jax.data import holdout
from inp_former_jax.data.errors import DataError
from inp_former_jax.data.image_files import EXTENSIONS
from inp_former_jax.data.layouts import split_file
from inp_former_jax.data.layouts.listing import (
  folder_exists,
  images_of,
  subfolders,
)
from inp_former_jax.data.layouts.tree import (
  absolute,
  match_masks,
  select_categories,
)
from inp_former_jax.data.records import DEFECTIVE, NORMAL, Dataset, Record

NAMES = {
  "normal": ("normal", "good", "ok"),
  "defect": ("defect", "anomaly", "bad", "ng", "abnormal"),
  "mask": ("mask", "masks", "ground_truth"),
  "test_normal": ("test_normal", "test_good", "test_ok"),
}
LAYOUT = (
  "expected a folder normal/ with images and, where there are any, defect/ "
  "and mask/ beside it; or several such folders, one for each category; or "
  f"images and nothing else; or a list, {' or '.join(split_file.NAMES)}"
)
HELD_OUT = 1 / 5  # share of the normal images that is kept for testing


def read_folder(
  root: str | os.PathLike, categories: Sequence[str] = ()
) -> Dataset:
  """Reads images that are sorted into normal and defective ones.

  Args:
    root: The folder of one category or of several, or a folder with a list of
      its files.
    categories: Names of the categories to read, in this order; if empty, all
      are read in the order of their names.

  Returns:
    The records, by category. The docstring of the module says which are test
    records; there are none if there are only normal images.

  Raises:
    DataError: If the folder does not exist, is not in this layout or holds
      images that would be left out; if a category does not exist or has no
      training images; if masks are ambiguous; or if the list is wrong.
  """
  root = absolute(root)
  if not root.is_dir():
    found = "is not a folder" if root.exists() else "does not exist"
    raise DataError(f"{root} {found}; {LAYOUT}. Check `root`.")
  listed = split_file.find(root)
  if listed:
    parts = select_categories(root, split_file.read(listed), categories)
  else:
    folders = select_categories(root, _categories(root), categories)
    parts = {name: _records(folders[name], name) for name in folders}
  train = [r for part in parts.values() for r in part[0]]
  test = [r for part in parts.values() for r in part[1]]
  return Dataset(root.name, tuple(train), tuple(test))


def _categories(root: pathlib.Path) -> dict[str, pathlib.Path]:
  """Returns category -> its folder, sorted by name."""
  if _parts(root):
    return {root.name: root}
  folders = {f.name: f for f in subfolders(root) if _parts(f)}
  if not folders and not images_of(root):
    found = ", ".join(folder.name for folder in subfolders(root)[:8])
    raise DataError(
      f"{root} holds no images: {LAYOUT}; found "
      f"{'the folders ' + found if found else 'no folder at all'}. Images end "
      f"in {', '.join(EXTENSIONS)}. Check `root`."
    )
  if not folders:
    return {root.name: root}
  _refuse_others(root, set(folders.values()))
  return folders


def _parts(folder: pathlib.Path) -> dict[str, pathlib.Path]:
  """Returns key of NAMES -> the subfolder of such a name, where one exists."""
  parts = {}
  for entry in subfolders(folder):
    for part, names in NAMES.items():
      if entry.name.lower() not in names:
        continue
      if part in parts:
        raise DataError(
          f"{parts[part]} and {entry} are two names for the same folder; "
          f"expected one of {', '.join(names)}. Move the images of one into "
          "the other."
        )
      parts[part] = entry
  return parts


def _refuse_others(folder: pathlib.Path, known: set[pathlib.Path]) -> None:
  """Raises DataError if images outside the known folders would be left out."""
  images = images_of(folder)
  if images:
    raise DataError(
      f"{folder} has images beside its folder {min(known).name}, e.g. "
      f"{images[0].name} ({len(images)} in total), which may be normal or "
      f"not; {LAYOUT}. Move them into one of the folders, or elsewhere."
    )
  for other in subfolders(folder):
    if other in known or not _any_image(other):
      continue
    names = [name for names in NAMES.values() for name in names]
    nearest = difflib.get_close_matches(other.name.lower(), names, n=1)
    raise DataError(
      f"{other} has images, but its name is none of those known; {LAYOUT}. "
      + (f"Did you mean {nearest[0]}/? " if nearest else "")
      + "Rename the folder, or move it elsewhere."
    )


def _refuse_inner(folder: pathlib.Path) -> None:
  """Raises DataError if there are images in folders inside a folder."""
  for inner in subfolders(folder):
    if _any_image(inner):
      raise DataError(
        f"{inner} has images that would be left out; expected them in "
        f"{folder} itself. Move them there, or elsewhere."
      )


def _any_image(folder: pathlib.Path) -> bool:
  return any(images_of(f) for f in (folder, *subfolders(folder)))


def _records(
  folder: pathlib.Path, category: str
) -> tuple[list[Record], list[Record]]:
  """Returns the train and the test records of one category."""
  parts = _parts(folder)
  if parts:
    _refuse_others(folder, set(parts.values()))
  normal = _normal_images(folder, parts)
  defects = _defects(parts.get("defect"), parts.get("mask"), category)
  if "test_normal" in parts:
    tested = _images(parts["test_normal"])
  else:
    tested = _held_out(normal) if defects else []
  trained = [image for image in normal if image not in set(tested)]
  train, test = (
    [Record(image, category, NORMAL, "good") for image in images]
    for images in (trained, tested)
  )
  return train, test + defects


def _normal_images(
  folder: pathlib.Path, parts: dict[str, pathlib.Path]
) -> list[pathlib.Path]:
  if not parts:
    return _images(folder)
  if "normal" not in parts:
    raise DataError(
      f"{folder} has {', '.join(f'{p.name}/' for p in parts.values())} but no "
      f"normal/; {LAYOUT}. Put normal images into {folder / 'normal'}."
    )
  return _images(parts["normal"])


def _images(folder: pathlib.Path) -> list[pathlib.Path]:
  """Returns the images of a folder; raises DataError if there are none."""
  _refuse_inner(folder)
  images = images_of(folder)
  if not images:
    raise DataError(
      f"{folder} has no images; expected files ending in "
      f"{', '.join(EXTENSIONS)}. Put normal images there."
    )
  return images


def _held_out(images: list[pathlib.Path]) -> list[pathlib.Path]:
  """Returns the images whose names have the smallest hashes, for testing."""
  chosen = sum(holdout.rank(image) < HELD_OUT for image in images)
  chosen = min(max(chosen, 1), len(images) - 1)
  return sorted(holdout.first_by_hash(images, chosen))


def _defects(
  folder: pathlib.Path | None, masks: pathlib.Path | None, category: str
) -> list[Record]:
  """Returns records of the images in a folder, if any, and its subfolders."""
  if folder is None:
    return []
  kinds = [("defect", images_of(folder))]
  for kind in subfolders(folder):
    _refuse_inner(kind)
    kinds.append((kind.name, images_of(kind)))
  for kind, _ in kinds:
    if kind.lower() in NAMES["normal"]:
      raise DataError(
        f"{folder / kind} is a kind of defect by its place, but normal by its "
        "name; expected the name of a defect. Rename the folder, or move it."
      )
  owned = _match_kinds(kinds, masks) if masks else {}
  return [
    Record(image, category, DEFECTIVE, kind, owned.get(image, ()))
    for kind, images in kinds
    for image in images
  ]


def _match_kinds(
  kinds: list[tuple[str, list[pathlib.Path]]], folder: pathlib.Path
) -> dict[pathlib.Path, tuple[pathlib.Path, ...]]:
  """Returns image -> its mask, from its kind's folder or else from `folder`."""
  masks, others = {}, []
  for kind, images in kinds:
    if folder_exists(folder / kind):
      masks |= match_masks(images, folder / kind)
    else:
      others += images
  return masks | match_masks(others, folder)
