"""Archives of arrays whose headers are checked before any array is read.

An archive of a few megabytes can claim to hold arrays of many gigabytes, for
which numpy reserves memory before it reads them.
"""

import math
import os
import pathlib
import zipfile

import numpy as np

# Weights are noise, which hardly shrinks; zeros do, by a factor of 1000.
_MOST_UNPACKED = 20
_FREE = 64 * 2**20  # bytes that any archive may unpack to


def refuse_bomb(path: pathlib.Path) -> None:
  """Makes sure that an archive does not unpack to very much more than it is.

  Args:
    path: The zip archive, such as a `.npz` file.

  Raises:
    ValueError: If its entries have more than 64 MiB and 20 times the size of
      the archive.
    zipfile.BadZipFile: If it is no zip archive.
    OSError: If it cannot be read.
  """
  size = os.stat(path).st_size
  with zipfile.ZipFile(path) as archive:
    unpacked = sum(info.file_size for info in archive.infolist())
  if unpacked > max(_FREE, _MOST_UNPACKED * size):
    raise ValueError(
      f"it has {size} bytes and claims to unpack to {unpacked}, which no file "
      "of weights does"
    )


def npz_headers(
  path: pathlib.Path,
) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
  """Reads the headers of a `.npz` file and checks them against its size.

  Args:
    path: The file.

  Returns:
    The shape and the type of each array by name, in the order of the file. The
    arrays can be read by `np.load`.

  Raises:
    ValueError: If an array's header does not fit its bytes, if a name occurs
      twice, if pickled objects are among the arrays, or see `refuse_bomb`.
    zipfile.BadZipFile: If it is no zip archive.
    OSError: If it cannot be read.
  """
  refuse_bomb(path)
  headers = {}
  with zipfile.ZipFile(path) as archive:
    for info in archive.infolist():
      key = info.filename.removesuffix(".npy")
      if key in headers:
        raise ValueError(f"it holds {key} twice")
      with archive.open(info) as member:
        headers[key] = _npy_header(member, key, info.file_size)
  return headers


def _npy_header(
  member, key: str, file_size: int
) -> tuple[tuple[int, ...], np.dtype]:
  readers = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
  }
  try:
    version = np.lib.format.read_magic(member)
    shape, _, dtype = readers[version](member)
  except (ValueError, KeyError) as error:
    raise ValueError(f"{key} is not an array ({error})") from error
  if dtype.hasobject:
    raise ValueError(f"{key} holds pickled objects, which are never read")
  needed, found = math.prod(shape) * dtype.itemsize, file_size - member.tell()
  if needed != found:
    raise ValueError(
      f"{key}, {dtype.name} of shape {shape}, needs {needed} bytes, but the "
      f"file has {found} bytes for it"
    )
  return shape, dtype
