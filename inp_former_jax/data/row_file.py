"""A file of equal arrays ("rows") that are written once, in any order.

Each row has a checksum, which also covers its number and the key of the file.
A row counts only once its checksum has been written behind its data, so neither
a killed process nor a full disk leaves half a row that is taken for a whole
one, and several threads, processes and hosts may fill a file together.

Rows are read at their position rather than through a memory map: that copies
from the same pages of the operating system's cache, but a truncated file gives
a short read, where a memory map would end the process.
"""

import json
import os
import pathlib
import shutil
import struct
import zlib
from collections.abc import Mapping
from typing import Any

import filelock
import numpy as np
from absl import logging

from inp_former_jax.atomic import replacing

_HEADER = struct.Struct("<4sI")  # the mark and the checksum
_MARK = b"row1"
# Rows share no page, because the caches of network file systems work by pages.
_PAGE = 4096


class CacheError(ValueError):
  """Raised if a cache cannot be written, or has no room."""


class RowFile:
  """Random access to the rows of a file.

  It can be sent to other processes: each opens the file for itself.

  Attributes:
    path: The path of the file.
    count: The number of rows.
    shape: The shape of a row.
    dtype: The dtype of a row.
  """

  def __init__(
    self,
    path: pathlib.Path,
    key: Mapping[str, Any],
    *,
    count: int,
    shape: tuple[int, ...],
    dtype: np.typing.DTypeLike,
  ):
    """Opens a file, and creates it without any row if it does not exist.

    Args:
      path: The path of the file; its folder is made if it does not exist.
      key: Everything that decides the content, fit for JSON. It is written
        beside the file for people to read.
      count: The number of rows.
      shape: The shape of a row.
      dtype: The dtype of a row.

    Raises:
      CacheError: If the file cannot be created or written.
    """
    self.path, self.count = path, count
    self.shape, self.dtype = tuple(shape), np.dtype(dtype)
    size = _HEADER.size + self.data_bytes
    self._stride = -(-size // _PAGE) * _PAGE
    text = json.dumps(key, indent=2, sort_keys=True) + "\n"
    self._seed = zlib.crc32(text.encode())
    try:
      self._create(text)
      self._file = os.open(path, os.O_RDWR)
    except OSError as error:
      raise CacheError(
        f"The cache {path} cannot be written ({error.strerror or error}). Set "
        "`cache_dir` to a folder that you may write to, or `cache`=off."
      ) from error

  def _create(self, text: str) -> None:
    size = self._stride * self.count
    self.path.parent.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(f"{self.path}.lock"):
      found = self.path.stat().st_size if self.path.exists() else None
      if found == size:
        return
      if found is not None:
        logging.warning(
          "%s has %d bytes, expected %d: it is damaged, thrown away and "
          "computed again.",
          *(self.path, found, size),
        )
      with replacing(self.path.with_suffix(".json")) as part:
        part.write_text(text, encoding="utf-8")
      with replacing(self.path) as part, open(part, "wb") as file:
        file.truncate(size)  # takes no room before rows are written

  def __setstate__(self, state: dict[str, Any]) -> None:
    """Opens the file again, in another process."""
    self.__dict__ = state | {"_file": os.open(state["path"], os.O_RDWR)}

  def __del__(self):
    """Closes the file."""
    if hasattr(self, "_file"):
      os.close(self._file)

  @property
  def data_bytes(self) -> int:
    """The bytes of a row's values."""
    return int(np.prod(self.shape)) * self.dtype.itemsize

  @property
  def row_bytes(self) -> int:
    """The room that a row takes on the disk, in bytes."""
    return self._stride

  def has(self, index: int) -> bool:
    """Returns whether a row has been written; does not read its data."""
    header = os.pread(self._file, _HEADER.size, index * self._stride)
    return header[: len(_MARK)] == _MARK

  def count_missing(self) -> int:
    """Returns how many rows have not been written."""
    return sum(not self.has(index) for index in range(self.count))

  def read(self, index: int) -> np.ndarray | None:
    """Reads a row and compares it with its checksum.

    Args:
      index: The number of the row, in [0, count).

    Returns:
      The row, or None if it has not been written, or is damaged; the latter is
      logged.
    """
    start = index * self._stride
    header = os.pread(self._file, _HEADER.size, start)
    if header[: len(_MARK)] != _MARK:
      return None
    row = np.empty(self.shape, self.dtype)
    view = _bytes(row)
    done = os.preadv(self._file, [view], start + _HEADER.size)
    _, checksum = _HEADER.unpack(header)
    if done == len(view) and self._checksum(index, view) == checksum:
      return row
    logging.warning(
      "%s is damaged: row %d does not have its checksum, and is computed "
      "again.",
      *(self.path, index),
    )
    # So that it is not taken for whole by `has`.
    os.pwrite(self._file, bytes(_HEADER.size), start)
    return None

  def write(self, index: int, row: np.ndarray) -> None:
    """Writes a row.

    Args:
      index: The number of the row, in [0, count).
      row: The row, of the file's shape and dtype.

    Raises:
      CacheError: If it cannot be written, for example because the disk is full.
        The rows that have been written remain.
    """
    if row.shape != self.shape or row.dtype != self.dtype:
      raise ValueError(
        f"The row is {row.dtype}{list(row.shape)}; {self.path} holds "
        f"{self.dtype}{list(self.shape)}."
      )
    view = _bytes(np.ascontiguousarray(row))
    start = index * self._stride
    header = _HEADER.pack(_MARK, self._checksum(index, view))
    try:
      done = 0
      while done < len(view):  # a nearly full disk may take a part
        place = start + _HEADER.size + done
        done += os.pwrite(self._file, view[done:], place)
      os.pwrite(self._file, header, start)
    except OSError as error:
      raise CacheError(
        f"The cache {self.path} cannot be written ({error.strerror}). Free "
        "some space, set `cache_dir` to a folder on another disk, or "
        "`cache`=off. What it holds so far is kept."
      ) from error

  def _checksum(self, index: int, view: memoryview) -> int:
    return zlib.crc32(view, zlib.crc32(struct.pack("<q", index), self._seed))


def free_disk(folder: pathlib.Path) -> int:
  """Returns the bytes that are free on the disk of a folder."""
  return shutil.disk_usage(folder).free


def _bytes(array: np.ndarray) -> memoryview:
  # By way of uint8, because bfloat16 has no buffer of its own.
  return array.reshape(-1).view(np.uint8).data
