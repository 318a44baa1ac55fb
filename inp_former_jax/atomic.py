"""Files that appear whole or not at all."""

import contextlib
import os
import pathlib
from collections.abc import Iterator


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[pathlib.Path]:
  """Gives a temporary file's path, which then takes the place of `path`.

  Args:
    path: The file to write; its folder is made if it is not there.

  Yields:
    A path in the same folder, with the same suffix, where the caller writes
    the file and closes it. After an error it is removed and `path` is as it
    was.
  """
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  part = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
  try:
    yield part
    # Without it a power cut could leave the new name on an empty file.
    with open(part, "rb+") as file:
      os.fsync(file.fileno())
    os.replace(part, path)
  finally:
    part.unlink(missing_ok=True)
