"""Writes files and folders that appear whole or not at all."""

import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
import shutil
from collections.abc import Generator
from typing import Any


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Generator[pathlib.Path]:
  """Replaces a file by a temporary file that the caller writes.

  Args:
    path: The file to write; its folder is made if it does not exist.

  Yields:
    The temporary path, in the same folder and with the same suffix, where the
    caller writes the file and closes it. After an error it is removed and
    `path` is unchanged.
  """
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  # A name may have 255 bytes, and only a few more are added to it.
  stem = path.stem
  if len(os.fsencode(stem)) > 200:
    stem = hashlib.sha256(os.fsencode(stem)).hexdigest()
  part = path.with_name(f".{stem}.{os.getpid()}.part{path.suffix}")
  try:
    yield part
    # Without fsync, a power failure could leave an empty file under the new
    # name.
    with open(part, "rb+") as file:
      os.fsync(file.fileno())
    os.replace(part, path)
  finally:
    part.unlink(missing_ok=True)


def write_json(path: str | os.PathLike, value: Any) -> None:
  """Replaces a file by a value as JSON, indented for people to read.

  Args:
    path: The file to write; its folder is made if it does not exist.
    value: A value fit for JSON; dataclasses become objects of their fields.

  Raises:
    TypeError: If it holds an object that JSON has no form for.
    ValueError: If it holds a number that is not finite, which JSON has no form
      for either.
  """
  try:
    text = json.dumps(value, indent=2, allow_nan=False, default=_fields)
  except ValueError as error:
    raise ValueError(f"{path} cannot be written: {error}.") from error
  with replacing(path) as part:
    part.write_text(text + "\n", encoding="utf-8")


def _fields(value: Any) -> dict[str, Any]:
  if dataclasses.is_dataclass(value) and not isinstance(value, type):
    return dataclasses.asdict(value)
  raise TypeError(f"{type(value).__name__} cannot be written as JSON.")


@contextlib.contextmanager
def replacing_folder(path: str | os.PathLike) -> Generator[pathlib.Path]:
  """Replaces a folder by a temporary folder that the caller fills.

  Args:
    path: The folder to write; if it exists, all that it holds is replaced.

  Yields:
    The temporary folder, beside `path`. After an error it is removed and `path`
    is unchanged.
  """
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  part = path.with_name(f".{path.name}.{os.getpid()}.part")
  old = path.with_name(f".{path.name}.{os.getpid()}.old")
  try:
    part.mkdir()
    yield part
    for name in part.rglob("*"):
      if name.is_file():
        with open(name, "rb+") as file:
          os.fsync(file.fileno())
    if path.exists():
      os.rename(path, old)
    os.rename(part, path)
  finally:
    shutil.rmtree(part, ignore_errors=True)
    if old.exists() and not path.exists():
      os.rename(old, path)
    shutil.rmtree(old, ignore_errors=True)
