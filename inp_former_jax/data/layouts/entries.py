"""What data sets with a list of their files share: checks of that list."""

import concurrent.futures
import os
import pathlib
from collections.abc import Iterable

from inp_former_jax.data.errors import DataError
from inp_former_jax.data.image_files import ImageFile

_FOLDERS_AT_ONCE = 16
_FOLDERS_A_TASK = 32  # a task for each would take longer than to list it


def resolve_within(
  root: pathlib.Path, relative: str, where: str
) -> pathlib.Path:
  """The file that a list names, which must not lie outside the data set.

  Decided by the name alone, without a look at the disk: there may be many,
  and a link inside the root may well lead out of it.

  Args:
    root: Folder that the list's names start from.
    relative: A name in the list, with / between folders.
    where: It stands in the list, for the error: "split.csv, line 3".

  Returns:
    `root / relative`.

  Raises:
    DataError: The name is empty, absolute, leads upwards by "..", or has
      something in it that a name common to all systems has not.
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
    f"{where}: the path {relative!r} {fault}; expected one relative to {root} "
    "that stays inside it, with / between folders. Mend the list."
  )


def require_category(name: str, where: str) -> str:
  """Refuses a category that cannot be the name of a folder: results get one.

  Args:
    name: Of the category.
    where: It stands in the list, for the error.

  Returns:
    The name.

  Raises:
    DataError: It is empty, "." or "..", or has a slash in it.
  """
  if not name.strip() or name in (".", "..") or set(name) & set("/\\\0"):
    raise DataError(
      f"{where}: the category is {name!r}; expected a name that a folder may "
      'have, like "cable". Mend the list.'
    )
  return name


def require_once(
  image: ImageFile, where: str, seen: dict[ImageFile, str]
) -> None:
  """Refuses an image that the list has named before.

  Args:
    image: The image.
    where: It stands in the list, for the error.
    seen: Image -> where it stands, of all before it; this one is added.

  Raises:
    DataError: It has.
  """
  first = seen.setdefault(image, where)
  if first is not where:
    raise DataError(
      f"{where}: {image} is listed twice, before in {first}; expected every "
      "image once, so that none is counted twice or trained on and tested. "
      "Remove one of the two."
    )


def require_files(files: Iterable[pathlib.Path], source: str) -> None:
  """Refuses a list with files that are not there.

  Lists every folder once, which for five images of a sample is faster than
  to ask for each of them; several folders at once, as a network drive answers
  late.

  Args:
    files: All files of the list.
    source: Its name, for the error.

  Raises:
    DataError: Some are not there; names the first and says how many.
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
      f"{source} lists {missing[0]}, which is not there; {len(missing)} of "
      f"its {total} files are missing, expected all. Add them, or take them "
      "off the list; categories as a whole are left out by "
      "config.data.categories."
    )


def _missing(
  folders: Iterable[tuple[str, dict[str, pathlib.Path]]],
) -> list[pathlib.Path]:
  """Of the files wanted in each folder, by name, those that are not there."""
  missing = []
  for folder, wanted in folders:
    try:
      with os.scandir(folder) as entries:
        present = {entry.name for entry in entries if entry.is_file()}
    except (FileNotFoundError, NotADirectoryError):
      present = set()
    missing += [file for name, file in wanted.items() if name not in present]
  return missing
