"""Reads the lists and JSON files of data sets, whatever they may hold."""

import json
import os
import pathlib
import reprlib
from typing import Any

from inp_former_jax.data.errors import DataError
from inp_former_jax.data.image_files import require_regular_file

MAX_BYTES = 512 * 2**20  # Python takes several times as much for its objects

_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = 120


def read_bytes(path: pathlib.Path, expected: str = "a list of images") -> bytes:
  """Reads a file whole, such as a list of images.

  Args:
    path: The file.
    expected: What the file should be, for the error.

  Returns:
    Its content.

  Raises:
    DataError: If it is not a regular file, has more than MAX_BYTES or cannot
      be read.
  """
  try:
    require_regular_file(path, expected=expected)
    size = os.stat(path).st_size
    if size > MAX_BYTES:
      raise DataError(
        f"{path} has {size} bytes; expected {expected} of at most "
        f"{MAX_BYTES} bytes. Split it into several."
      )
    return path.read_bytes()
  except OSError as error:
    raise DataError(
      f"{path} cannot be read: {error.strerror or error}. Copy the file again."
    ) from error


def parse_json(text: str | bytes, where: str) -> Any:
  """Parses JSON.

  Args:
    text: The JSON.
    where: The file, or the place in it, for the error.

  Returns:
    The value.

  Raises:
    DataError: If it is no valid JSON, is nested too deeply, or holds a number
      of too many digits.
  """
  try:
    return json.loads(text)
  except json.JSONDecodeError as error:
    reason = f"line {error.lineno}, column {error.colno}: {error.msg}"
  except RecursionError:
    reason = "its values are nested too deeply"
  except UnicodeDecodeError as error:
    reason = (
      f"it cannot be read as UTF-8 ({error.reason} at byte {error.start})"
    )
  except ValueError:  # more digits than Python converts
    reason = "it holds a number of too many digits"
  raise DataError(f"{where} is not valid JSON: {reason}. Copy the file again.")


def shown(value: object) -> str:
  """Returns a value for an error, shortened if it is large.

  Args:
    value: What a file holds in place of what was expected.
  """
  return _REPR.repr(value)
