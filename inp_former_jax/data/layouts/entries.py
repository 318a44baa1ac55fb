"""Checks of the list of files that some data sets come with."""

import concurrent.futures
import os
import pathlib
from collections.abc import Iterable

from inp_former_jax.data.errors import DataError
from inp_former_jax.data.image_files import ImageFile
from inp_former_jax.data.text_files import shown

_FOLDERS_AT_ONCE = 16
_FOLDERS_A_TASK = 32  # A task per folder would take longer than listing it.


def resolve_within(
  root: pathlib.Path, relative: str, where: str
) -> pathlib.Path:
  """Returns the file that a list names, which must lie within the data set.

  Only the name is checked and not the disk: there may be many files, and a
  link inside the root may legitimately lead out of it.

  Args:
    root: The folder to which the names in the list are relative.
    relative: The name in the list, with / between folders.
    where: The place in the list, for the error, e.g. "split.csv, line 3".

  Returns:
    The path `root / relative`.

  Raises:
    DataError: If the name is empty or absolute, leads upwards by "..", or
      holds a character that not every system allows in a name.
  """
  if not relative.strip():
    fault = "is empty"
  elif "\0" in relative:
    fault = "holds a NUL character"
  elif "\\" in relative:
    fault = "holds a backslash"
  elif relative[0] == "/" or relative[1:3] == ":/":
    fault = "is absolute"
  elif ".." in relative and ".." in relative.split("/"):
    fault = "leads upwards by '..'"
  else:
    return root / relative
  raise DataError(
    f"{where}: the path {shown(relative)} {fault}; expected one relative to "
    f"{root} that stays inside it, with / between folders. Fix the list."
  )


def require_once(
  image: ImageFile, where: str, seen: dict[ImageFile, str]
) -> None:
  """Checks that a list has not named an image before.

  Args:
    image: The image that the list names.
    where: The place in the list, for the error.
    seen: The place of every image named so far; this image is added to it.

  Raises:
    DataError: If the list has named the image before.
  """
  first = seen.setdefault(image, where)
  if first is not where:
    raise DataError(
      f"{where}: {image} is listed twice, first in {first}; expected every "
      "image once, so that none is counted twice or used for both training and "
      "testing. Remove one of the two entries."
    )


def require_files(files: Iterable[pathlib.Path], source: str) -> None:
  """Checks that all files of a list exist.

  Each folder is listed once, which is faster than checking each file even if a
  folder holds only the five images of a sample. Several folders are listed at
  once because network drives answer slowly.

  Args:
    files: All files of the list.
    source: The name of the list, for the error.

  Raises:
    DataError: If files are missing; names the first of them and their number.
  """
  by_folder: dict[str, dict[str, pathlib.Path]] = {}
  for file in files:
    folder, name = os.path.split(file)
    by_folder.setdefault(folder, {})[name] = file
  folders = list(by_folder.items())
  parts = (
    folders[start : start + _FOLDERS_A_TASK]
    for start in range(0, len(folders), _FOLDERS_A_TASK)
  )
  with concurrent.futures.ThreadPoolExecutor(_FOLDERS_AT_ONCE) as pool:
    missing = [file for found in pool.map(_missing, parts) for file in found]
  if missing:
    total = sum(map(len, by_folder.values()))
    raise DataError(
      f"{source} lists {missing[0]}, which does not exist; {len(missing)} of "
      f"its {total} files are missing. Add them, or remove them from the list. "
      "To leave out whole categories, use `categories`."
    )


def _missing(
  folders: Iterable[tuple[str, dict[str, pathlib.Path]]],
) -> list[pathlib.Path]:
  """Returns which of the files wanted in each folder, by name, are missing."""
  missing = []
  for folder, wanted in folders:
    try:
      with os.scandir(folder) as entries:
        present = {entry.name for entry in entries if entry.is_file()}
    except (FileNotFoundError, NotADirectoryError):
      present = set()
    missing += [file for name, file in wanted.items() if name not in present]
  return missing
