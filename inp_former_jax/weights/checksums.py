"""Records of a file's size and sha256, by which a changed file is refused."""

import dataclasses
import json
import pathlib

from inp_former_jax.atomic import write_json
from inp_former_jax.weights import files


class ChangedFileError(ValueError):
  """Raised when a file no longer has the content that its record describes."""


@dataclasses.dataclass(frozen=True)
class FileRecord:
  """Origin, size and checksum of a file.

  Attributes:
    url: Address that the file came from; empty if the file was found on this
      machine without a record.
    size: Size of the file in bytes.
    sha256: Checksum of the file, in hex.
  """

  url: str
  size: int
  sha256: str


def record_path(path: pathlib.Path) -> pathlib.Path:
  """Returns the path of a file's record: `NAME.json` beside `NAME`."""
  return path.with_name(path.name + ".json")


def write_record(
  path: pathlib.Path, record: FileRecord, at: pathlib.Path | None = None
) -> None:
  """Writes a file's record atomically.

  Args:
    path: The file that the record describes.
    record: The record to write.
    at: Path of the record; by default `record_path(path)`.
  """
  write_json(at or record_path(path), record)


def verify_file(
  path: pathlib.Path, at: pathlib.Path | None = None
) -> FileRecord:
  """Compares a file with its record, or writes the record if there is none.

  Args:
    path: The file to verify.
    at: Path of the record; by default `record_path(path)`.

  Returns:
    The record of the file.

  Raises:
    ChangedFileError: If the size or the sha256 differs from the record, or if
      the record is damaged.
  """
  at = at or record_path(path)
  size, sha256 = path.stat().st_size, files.file_sha256(path)
  if not at.exists():
    record = FileRecord("", size, sha256)
    try:
      write_record(path, record, at)
    except OSError:
      # A read-only folder gets no record; nor can this process change the
      # files in it.
      pass
    return record
  record = _read_record(path, at)
  if (size, sha256) != (record.size, record.sha256):
    raise ChangedFileError(
      f"{path} has changed: it has {size} bytes and sha256 {sha256}, but its "
      f"record {at} says {record.size} bytes and sha256 {record.sha256}. "
      "Delete both to have the file fetched again, or only the record if you "
      "replaced the file on purpose."
    )
  return record


def _read_record(path: pathlib.Path, at: pathlib.Path) -> FileRecord:
  try:
    return FileRecord(**json.loads(at.read_text(encoding="utf-8")))
  except (ValueError, TypeError) as error:
    raise ChangedFileError(
      f"{at} is not the record (url, size, sha256) of {path}: {error}. "
      "Delete the record if you trust the file; otherwise delete both."
    ) from error
