"""Checks names that come from data before files are named after them.

Folders and files are named after the categories, defects and images of a data
set, which anybody may have made. Records check these names when they are made,
and whoever writes a file for a record asks `path_within` for its path.
"""

import functools
import os
import pathlib
import unicodedata
from collections.abc import Iterable

from inp_former_jax.data.errors import DataError
from inp_former_jax.terminal import printable

LONGEST = 255  # bytes of a name, in the file systems in use
# Characters by which the text after them is shown in another order.
_DIRECTIONS = frozenset(
  map(chr, [*range(0x202A, 0x202F), *range(0x2066, 0x206A)])
)


@functools.lru_cache(maxsize=4096)
def fault_of(name: str) -> str:
  """Says what is wrong with a name that a file or a folder shall have.

  Args:
    name: The name, without any folders.

  Returns:
    What is wrong, as in "holds a path separator"; empty if nothing is.
  """
  if not name.strip():
    return "is empty"
  if name in (".", ".."):
    return "leads to another folder"
  if "/" in name or "\\" in name:
    return "holds a path separator"
  if not name.isprintable():
    if any("\ud800" <= c <= "\udfff" for c in name):
      return "holds bytes that are not UTF-8"
    if any(unicodedata.category(c) in ("Cc", "Zl", "Zp") for c in name):
      return "holds a control character"
    if not _DIRECTIONS.isdisjoint(name):
      return "holds a character that changes the direction of the text"
  if len(name) > LONGEST // 4 and len(name.encode()) > LONGEST:
    return f"is longer than {LONGEST} bytes"
  return ""


def require_name(name: str, what: str, where: object) -> str:
  """Checks that a file or a folder may be named so.

  Args:
    name: The name, without any folders.
    what: What has that name, as in "category", for the error.
    where: The file, or the place in a list, that gives the name.

  Returns:
    The name, unchanged.

  Raises:
    DataError: If the name is empty, "." or "..", is too long, or holds a path
      separator, a control character or bytes that are not UTF-8.
  """
  fault = fault_of(name)
  if fault:
    shown = ascii(name) if len(name) <= 40 else ascii(name[:40]) + "..."
    raise DataError(
      f"{printable(str(where))}: the {what} is {shown}, which {fault}; "
      'expected a name that a folder may have on every system, like "cable". '
      "Rename it, or fix the list."
    )
  return name


def require_distinct(names: Iterable[str], what: str) -> None:
  """Checks that names differ by more than their case or their encoding.

  Some file systems do not tell "Nut" from "nut", or the two ways to write "é",
  so that the files of one would replace those of the other.

  Args:
    names: The names.
    what: What has these names, for the error.

  Raises:
    DataError: If two names are too similar.
  """
  seen: dict[str, str] = {}
  for name in names:
    folded = unicodedata.normalize("NFC", name).casefold()
    other = seen.setdefault(folded, name)
    if other != name:
      raise DataError(
        f"Two {what} have nearly the same name, {ascii(other)} and "
        f"{ascii(name)}: some file systems take them for one, and their "
        "results would overwrite each other. Rename one of them."
      )


def path_within(folder: str | os.PathLike, *names: str) -> pathlib.Path:
  """Returns the path of a file to write, which must lie in a folder.

  Links are followed, so that a link within the folder leads nowhere else.

  Args:
    folder: The folder.
    *names: The names of the folders inside it and of the file.

  Returns:
    The path `folder / names[0] / names[1] / ...`.

  Raises:
    DataError: If the path lies outside the folder or is the folder itself, or
      if one of its names is too long.
  """
  path = pathlib.Path(folder).joinpath(*names)
  home, real = os.path.realpath(folder), os.path.realpath(path)
  if real == home or os.path.commonpath((home, real)) != home:
    raise DataError(
      f"{ascii('/'.join(names))} would be written to {real}, which is not "
      f"inside {folder}. Rename the category, defect or image, or remove the "
      "link that leads out of the folder."
    )
  too_long = [n for n in path.parts if len(os.fsencode(n)) > LONGEST]
  if too_long:
    raise DataError(
      f"A file {too_long[0]} cannot be written into {folder}: its name is "
      f"longer than {LONGEST} bytes. Rename the image to a shorter name."
    )
  return path
