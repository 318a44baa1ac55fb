"""Joins names that come from data to a folder, and stays within it."""

import os
import pathlib


def path_within(folder: pathlib.Path, *names: str) -> pathlib.Path:
  """Returns a path below a folder.

  Args:
    folder: The folder. It may be a link, or hold links: they are its owner's.
    *names: Names from a data set, each of a file or folder below the last one.

  Returns:
    The folder with the names.

  Raises:
    ValueError: If the names lead to the folder itself or out of it, as "..".
  """
  path = pathlib.Path(os.path.normpath(folder.joinpath(*names)))
  if pathlib.Path(os.path.normpath(folder)) in path.parents:
    return path
  raise ValueError(
    f"{os.path.join(*names)!r}, a name in the data set, leads out of {folder}, "
    "where its results are to be written. Rename it."
  )
