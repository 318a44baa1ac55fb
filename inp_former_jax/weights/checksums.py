"""Size and sha256 of a file, kept beside it: a changed file is refused."""

import dataclasses
import json
import pathlib

from inp_former_jax.atomic import replacing
from inp_former_jax.weights import files


class ChangedFileError(ValueError):
  """A file is not what it was when its record was written."""


@dataclasses.dataclass(frozen=True)
class FileRecord:
  """What is known of a file.

  Attributes:
    url: Where it came from; empty if it was found here without a record.
    size: Bytes.
    sha256: In hex.
  """

  url: str
  size: int
  sha256: str


def record_path(path: pathlib.Path) -> pathlib.Path:
  """Where the record of a file lies: `NAME.json` beside `NAME`."""
  return path.with_name(path.name + ".json")


def write_record(
  path: pathlib.Path, record: FileRecord, at: pathlib.Path | None = None
) -> None:
  """Writes a file's record atomically.

  Args:
    path: The file.
    record: What to write.
    at: Where; by default beside the file.
  """
  content = json.dumps(dataclasses.asdict(record), indent=2)
  with replacing(at or record_path(path)) as part:
    part.write_text(content + "\n", encoding="utf-8")


def verify_file(
  path: pathlib.Path, at: pathlib.Path | None = None
) -> FileRecord:
  """Compares a file with its record; the first time it writes the record.

  Args:
    path: The file.
    at: Its record; by default beside the file.

  Returns:
    The record.

  Raises:
    ChangedFileError: Size or sha256 differ, or the record is damaged.
  """
  at = at or record_path(path)
  size, sha256 = path.stat().st_size, files.file_sha256(path)
  if not at.exists():
    record = FileRecord("", size, sha256)
    try:
      write_record(path, record, at)
    except OSError:
      # A folder without the right to write keeps no records: nothing here
      # changes its files either.
      pass
    return record
  record = _read_record(path, at)
  if (size, sha256) != (record.size, record.sha256):
    raise ChangedFileError(
      f"{path} has changed: it has {size} bytes and sha256 {sha256}, its "
      f"record {at} says {record.size} bytes and {record.sha256}. Delete "
      "both to have the file fetched again, or only the record if you "
      "replaced the file on purpose."
    )
  return record


def _read_record(path: pathlib.Path, at: pathlib.Path) -> FileRecord:
  try:
    return FileRecord(**json.loads(at.read_text(encoding="utf-8")))
  except (ValueError, TypeError) as error:
    raise ChangedFileError(
      f"{at} is not the record (url, size, sha256) of {path}: {error}. "
      "Delete the record if you trust the file, and both if not."
    ) from error
