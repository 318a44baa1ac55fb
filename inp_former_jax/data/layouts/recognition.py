"""Recognises the layout of a folder that was read as one of another layout."""

import itertools
import os
import pathlib

from inp_former_jax.data.errors import DataError
from inp_former_jax.data.layouts import btad, realiad, split_file, visa
from inp_former_jax.data.layouts.folder import NAMES
from inp_former_jax.data.layouts.listing import (
  images_of,
  subfolders,
)
from inp_former_jax.data.layouts.tree import (
  absolute,
)

_CATEGORIES = 8  # number of folders of a root that are checked

# A telltale path -> the layouts that have it, the likeliest first. The first
# table holds for the root, the second for the folder of a category, which may
# be the root itself.
_IN_ROOT = {
  **dict.fromkeys(split_file.NAMES, ("folder",)),
  realiad.JSONS: ("realiad",),
  visa.SPLIT: ("visa",),
  "1cls": ("visa",),
  btad.ARCHIVE_FOLDER: ("btad",),
}
_IN_CATEGORY = {
  "Data/Images": ("visa",),
  "train/ok": ("btad",),
  "test_public": ("mvtec_ad2",),
  "test/logical_anomalies": ("mvtec_loco",),
  "test/structural_anomalies": ("mvtec_loco",),
  "train/good": ("mvtec", "mpdd", "visa", "mvtec_loco", "mvtec_ad2"),
}
# In the public layouts these folders hold normal images too.
_SPLITS = ("train", "test", "test_public", "validation", "ground_truth")


def recognise(root: str | os.PathLike) -> dict[str, str]:
  """Finds the layouts a folder may have, from a few telltale files and folders.

  Args:
    root: The folder of a data set; it may be missing.

  Returns:
    Layout -> the path that gives it away, relative to the root; the likeliest
    layout first, and empty if there is no telltale.
  """
  root = absolute(root)
  if not root.is_dir():
    return {}
  folders = [root, *subfolders(root)[:_CATEGORIES]]
  found: dict[str, str] = {}
  for table, places in ((_IN_ROOT, [root]), (_IN_CATEGORY, folders)):
    for sign, place in itertools.product(table, places):
      if os.path.exists(place / sign):
        for layout in table[sign]:
          found.setdefault(layout, _relative(place / sign, root))
  for place in folders:
    normal = None if place.name in _SPLITS else _normal_images(place)
    if normal:
      found.setdefault("folder", _relative(normal, root))
  return found


def _normal_images(folder: pathlib.Path) -> pathlib.Path | None:
  """Returns the folder of normal images that the layout `folder` expects."""
  for inner in subfolders(folder):
    if inner.name.lower() in NAMES["normal"] and images_of(inner):
      return inner
  return None


def _relative(path: pathlib.Path, root: pathlib.Path) -> str:
  return path.relative_to(root).as_posix()


def describe_other(root: str | os.PathLike, layout: str) -> str:
  """Says which layout a folder has, if it could not be read in another one.

  Args:
    root: The folder of the data set.
    layout: The layout in which it could not be read.

  Returns:
    A message for the user; empty if the folder may well have that layout, or
    if none is recognised.
  """
  try:
    found = recognise(root)
  except (DataError, OSError):  # the reader's own error says as much
    return ""
  if not found or layout in found:
    return ""
  other, sign = next(iter(found.items()))
  return (
    f"{absolute(root)} does not have the layout {layout}; it looks like the "
    f"layout {other} (it has {sign}): use `layout`={other}."
  )
