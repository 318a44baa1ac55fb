"""Lists the folders of data sets, in which nothing may be missing unnoticed."""

import os
import pathlib

from inp_former_jax.data.errors import DataError
from inp_former_jax.data.image_files import (
  EXTENSIONS,
  is_dangling,
  printable,
)
from inp_former_jax.terminal import shortened

_SHOWN = 3  # links of a folder that are named in an error


def subfolders(folder: pathlib.Path) -> list[pathlib.Path]:
  """Returns the visible folders in a folder, sorted by name.

  Raises:
    DataError: If the folder has links that lead nowhere, see `entries_of`.
  """
  return [path for path, is_folder in entries_of(folder) if is_folder]


def images_of(folder: pathlib.Path) -> list[pathlib.Path]:
  """Returns the visible image files in a folder, sorted by name.

  A named pipe with the name of an image is among them, so that reading it is an
  error; it would otherwise be left out unnoticed.

  Raises:
    DataError: If the folder has links that lead nowhere, see `entries_of`.
  """
  return [
    path
    for path, is_folder in entries_of(folder)
    if not is_folder and path.suffix.lower() in EXTENSIONS
  ]


def entries_of(folder: pathlib.Path) -> list[tuple[pathlib.Path, bool]]:
  """Lists a folder, and refuses links that lead nowhere.

  Behind such a link there were images or folders of images, which would be left
  out without a word.

  Args:
    folder: The folder.

  Returns:
    Path and whether it is a folder, for each visible entry, sorted by name.

  Raises:
    DataError: If there are such links; says how many and names the first.
  """
  found, dangling = [], []
  with os.scandir(folder) as entries:
    for entry in sorted(entries, key=lambda entry: entry.name):
      if entry.name.startswith("."):
        continue
      if entry.is_symlink() and is_dangling(entry.path):
        dangling.append(entry.name)
      else:
        # Unlike entry.is_dir(), this is False and no error in a loop of links.
        found.append((folder / entry.name, os.path.isdir(entry)))
  if dangling:
    raise _dangling(folder, dangling, len(found) + len(dangling))
  return found


def folder_exists(folder: pathlib.Path) -> bool:
  """Returns whether there is a folder that may be absent.

  Args:
    folder: The folder.

  Raises:
    DataError: If it is a link that leads nowhere.
  """
  if is_dangling(folder):
    raise _dangling(folder.parent, [folder.name], 1)
  return folder.is_dir()


def _dangling(folder: pathlib.Path, names: list[str], total: int) -> DataError:
  shown = shortened([printable(name) for name in names], _SHOWN)
  return DataError(
    f"{printable(folder)}: {len(names)} of its {total} entries are links to "
    f"files or folders that are not there: {shown}. Fetch them (git "
    "annex get, dvc pull), mount their disk, or remove the links."
  )
