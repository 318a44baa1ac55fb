"""The layout of MVTec-AD: a folder on disk -> records.

ROOT/<category>/train/good/NAME.png
ROOT/<category>/test/good/NAME.png
ROOT/<category>/test/<defect>/NAME.png
ROOT/<category>/ground_truth/<defect>/NAME_mask.png  (or NAME.png)
"""

import difflib
import os
import pathlib
from collections.abc import Sequence

from inp_former_jax.data.records import DataError, Dataset, Record

EXTENSIONS = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
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
      not there or has nothing to train on, or its masks are ambiguous.
  """
  root = pathlib.Path(os.path.abspath(os.path.expanduser(root)))
  folders = _categories(root)
  if isinstance(categories, str):
    categories = (categories,)
  names = tuple(dict.fromkeys(categories)) or tuple(folders)
  for name in names:
    if name not in folders:
      raise DataError(_unknown_category(root, name, folders))
  train = [r for name in names for r in _train_records(folders[name], name)]
  test = [r for name in names for r in _test_records(folders[name], name)]
  return Dataset(root.name, tuple(train), tuple(test))


def _categories(root: pathlib.Path) -> dict[str, pathlib.Path]:
  """Category -> its folder, sorted by name."""
  if not root.is_dir():
    found = "is not a folder" if root.exists() else "does not exist"
    raise DataError(f"{root} {found}; {LAYOUT}. Check config.data.root.")
  if (root / "train" / "good").is_dir() or (root / "test").is_dir():
    return {root.name: root}
  folders = {
    folder.name: folder
    for folder in _subfolders(root)
    if any((folder / p).is_dir() for p in ("train", "test", "ground_truth"))
  }
  if not folders:
    found = ", ".join(folder.name for folder in _subfolders(root)[:8])
    raise DataError(
      f"{root} holds no category: {LAYOUT}, found "
      f"{'the folders ' + found if found else 'no folder at all'}. Point "
      "config.data.root at the folder that holds the categories."
    )
  return folders


def _unknown_category(
  root: pathlib.Path, name: str, folders: dict[str, pathlib.Path]
) -> str:
  nearest = difflib.get_close_matches(name, folders, n=1)
  return (
    f"{root} has no category {name!r}; it has {', '.join(folders)}. "
    + (f"Did you mean {nearest[0]!r}? " if nearest else "")
    + "Mend config.data.categories."
  )


def _train_records(folder: pathlib.Path, category: str) -> list[Record]:
  good = folder / "train" / "good"
  if not good.is_dir():
    raise DataError(
      f"{folder} is a category without train/good; {LAYOUT}. Put normal "
      f"images into {good}, or leave this category out with "
      "config.data.categories."
    )
  images = _images(good)
  if not images:
    raise DataError(
      f"{good} has no images; expected files ending in "
      f"{', '.join(EXTENSIONS)}. Put normal images there."
    )
  return [Record(image, category, 0, "good") for image in images]


def _test_records(folder: pathlib.Path, category: str) -> list[Record]:
  records = []
  if not (folder / "test").is_dir():
    return records
  for kind in _subfolders(folder / "test"):
    images = _images(kind)
    if kind.name == "good":
      records += [Record(image, category, 0, "good") for image in images]
    else:
      masks = _match_masks(images, folder / "ground_truth" / kind.name)
      records += [
        Record(image, category, 1, kind.name, masks.get(image))
        for image in images
      ]
  return records


def _match_masks(
  images: Sequence[pathlib.Path], folder: pathlib.Path
) -> dict[pathlib.Path, pathlib.Path]:
  """Image -> its mask, NAME.<ext> or NAME_mask.<ext> in `folder`."""
  if not folder.is_dir():
    return {}
  by_stem = {}
  for image in images:
    by_stem.setdefault(image.stem, []).append(image)
  masks = {}
  files = _images(folder)
  for mask in files:
    image = _owner(mask, by_stem)
    if image in masks:
      raise DataError(
        f"{image} has two masks, {masks[image]} and {mask}; expected one. "
        "Remove the wrong one."
      )
    if image is not None:
      masks[image] = mask
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


def _subfolders(folder: pathlib.Path) -> list[pathlib.Path]:
  return sorted(
    entry
    for entry in folder.iterdir()
    if entry.is_dir() and not entry.name.startswith(".")
  )


def _images(folder: pathlib.Path) -> list[pathlib.Path]:
  return sorted(
    entry
    for entry in folder.iterdir()
    if entry.suffix.lower() in EXTENSIONS
    and not entry.name.startswith(".")
    and entry.is_file()
  )
