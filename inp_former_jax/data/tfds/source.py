"""Reads a TFDS data set that `tfds_builder` wrote into records.

DATA_DIR/NAME/VERSION/records.jsonl          all records without their images
DATA_DIR/NAME/VERSION/NAME-SPLIT.array_record-00000 and so on
DATA_DIR/NAME/VERSION/{dataset_info,features}.json

The first line of records.jsonl holds the name of the data set and the sizes of
the other files. Each further line holds a record, split by split and in order.
Only this file is read before the first batch, however large the data set.

Nothing that a file says is taken on trust: names are checked as those of any
layout, and the JSON files of TFDS, which name Python classes to import, are
there for other programs and are never read here.

DATA_DIR may be a bucket (gs://...) for everything in this module. Files are
opened by etils, which needs the package gcsfs for buckets, and by array_record,
which reads from buckets in recent versions (e.g. 0.8.6). This is untested.
"""

import dataclasses
import difflib
import json
import os
import pathlib
import re
import shlex
from typing import TYPE_CHECKING, Any

from inp_former_jax.data.errors import DataError
from inp_former_jax.data.image_files import (
  StoredFile,
  forget_open_files,
  import_tfds,
)
from inp_former_jax.data.layouts.tree import absolute
from inp_former_jax.data.names import require_name
from inp_former_jax.data.records import (
  BRIGHT,
  DEFECTIVE,
  NON_ZERO,
  NORMAL,
  Dataset,
  Record,
)
from inp_former_jax.data.text_files import read_bytes, shown

if TYPE_CHECKING:
  from etils import epath

COMMAND = "python -m inp_former_jax.data.tfds_builder"
INDEX = "records.jsonl"
PART = "incomplete."  # TFDS ignores folders whose names begin with it.
SPLITS = ("train", "test", "validation", "unlabelled")
VERSION = "1.0.0"  # The version of the file format, not of the images.

# The type of each attribute of a record other than its files, by name.
FIELDS = {
  field.name: field.type
  for field in dataclasses.fields(Record)
  if field.name not in ("image", "masks")
}


def read_tfds(name: str, data_dir: str | os.PathLike) -> Dataset:
  """Reads a data set that `tfds_builder` wrote.

  The records, their order and all pixels are those of the files that it was
  built from: images and masks are `StoredFile`s with the bytes of those files.

  Args:
    name: The name under which the data set was built.
    data_dir: The folder or bucket of TFDS data sets.

  Returns:
    The data set.

  Raises:
    DataError: If there is no data set of that name, if something else wrote
      it, or if the sizes of its files have changed since.
    ImportError: If the extra tfds is not installed.
  """
  import_tfds()
  if not data_dir:
    raise DataError(
      "`tfds_dir` is empty: set `tfds_dir`=FOLDER, the folder that holds the "
      "TFDS data sets."
    )
  folder = version_folder(name, data_dir)
  if not (folder / INDEX).exists():
    raise _absent(name, folder.parent.parent)
  header, *lines = read_index(folder)
  splits = {split: [] for split in SPLITS}
  try:
    header = json.loads(header)
    for record in map(json.loads, lines):
      records = splits[record["split"]]
      records.append(_record(record, str(folder), len(records)))
    name = _of_type(header["name"], str)
    dataset = Dataset(name=name, **_tuples(splits))
    files = _files(header["files"], folder)
  except DataError:
    raise  # it names the file or the record already
  except (ValueError, KeyError, TypeError, RecursionError) as error:
    raise DataError(
      f"{folder / INDEX} cannot be read: {type(error).__name__}: {error}. It "
      "is damaged, or a newer inp_former_jax wrote it: install that version, "
      f"or remove {folder} and build the data set again ({COMMAND})."
    ) from error
  _check_sizes(folder, files)
  forget_open_files()
  return dataset


def version_folder(name: str, data_dir: str | os.PathLike) -> "epath.Path":
  """Returns the folder of the files of a data set.

  Args:
    name: The name of the data set.
    data_dir: The folder or bucket of TFDS data sets.

  Returns:
    The absolute path of the folder, which may not exist.

  Raises:
    DataError: If TFDS does not allow the name.
  """
  from etils import epath

  if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
    raise DataError(
      f"A TFDS data set cannot be called {name!r}; expected lower-case "
      "letters, digits and underscores, beginning with a letter."
    )
  if not is_bucket(data_dir):
    data_dir = absolute(data_dir)
  return epath.Path(data_dir) / name / VERSION


def is_bucket(data_dir: str | os.PathLike) -> bool:
  """Returns whether a folder is the address of a bucket, such as gs://..."""
  return "://" in os.fspath(data_dir)


def foreign_entries(home: "epath.Path | pathlib.Path") -> list[str]:
  """Returns what lies in a data set's folder that holds no data set.

  Args:
    home: The folder DATA_DIR/NAME; may be absent.

  Returns:
    The names of its entries, without the remains of an interrupted build.
  """
  entries = sorted(e.name for e in home.iterdir()) if home.exists() else ()
  return [name for name in entries if not name.startswith((".", PART))]


def read_index(folder: "epath.Path | pathlib.Path") -> list[str]:
  """Reads the lines of the records.jsonl of a data set.

  Args:
    folder: The folder of the data set's files.

  Returns:
    The lines, at least one; the header is the first.
  """
  path = folder / INDEX
  if is_bucket(str(folder)):
    text = path.read_text(encoding="utf-8")
  else:
    text = _text(pathlib.Path(path))
  # Not splitlines(), which also splits at other characters.
  return text.removesuffix("\n").split("\n")


def _text(path: pathlib.Path) -> str:
  try:
    return read_bytes(path).decode("utf-8")
  except UnicodeDecodeError as error:
    raise DataError(
      f"{path} is not UTF-8 text. It is damaged: copy the folder again, or "
      f"remove it and build the data set again ({COMMAND})."
    ) from error


def _record(line: dict[str, Any], folder: str, index: int) -> Record:
  def stored(path: str, mask: int | None = None) -> StoredFile:
    return StoredFile(folder, line["split"], index, _of_type(path, str), mask)

  values = {name: _of_type(line[name], kind) for name, kind in FIELDS.items()}
  if values["label"] not in (NORMAL, DEFECTIVE):
    raise ValueError(f"a label is {values['label']}")
  if values["mask_values"] not in (BRIGHT, NON_ZERO):
    raise ValueError(f"mask_values is {values['mask_values']!r}")
  masks = _of_type(line["masks"], list)
  return Record(
    image=stored(line["image"]),
    masks=tuple(stored(path, i) for i, path in enumerate(masks)),
    **values,
  )


def _of_type(value: Any, kind: Any) -> Any:
  # Not isinstance: True and False are integers in Python.
  if type(value) is not kind:
    raise TypeError(f"it holds {shown(value)} in place of a {kind.__name__}")
  return value


def _files(sizes: object, folder: "epath.Path") -> dict[str, int]:
  """Returns the sizes of the files, whose names must be those of files."""
  return {
    require_name(name, "name of a file", folder / INDEX): _of_type(size, int)
    for name, size in _of_type(sizes, dict).items()
  }


def _tuples(splits: dict[str, list[Record]]) -> dict[str, tuple[Record, ...]]:
  return {split: tuple(records) for split, records in splits.items()}


def _check_sizes(folder: "epath.Path", files: dict[str, int]) -> None:
  """Detects an incomplete copy now rather than hours into a run."""
  for name, expected in files.items():
    path = folder / name
    found = path.stat().length if path.exists() else "no"
    if found != expected:
      raise DataError(
        f"{path} has {found} bytes, expected {expected}. Copy {folder} again, "
        f"or remove it and build the data set again ({COMMAND})."
      )


def _absent(name: str, data_dir: "epath.Path") -> DataError:
  """Returns an error that says what there is instead of the data set."""
  build = (
    f"To build it: {COMMAND} --layout=LAYOUT --root=FOLDER "
    f"--data_dir={shlex.quote(str(data_dir))} --name={name}"
  )
  if others := foreign_entries(data_dir / name):
    return DataError(
      f"{data_dir / name} was not written by this version of {COMMAND}: it has "
      f"{', '.join(others[:3])} but no {VERSION}/{INDEX}. Remove it, or use "
      f"another name. {build}"
    )
  present = sorted(
    folder.name
    for folder in (data_dir.iterdir() if data_dir.exists() else ())
    if (folder / VERSION / INDEX).exists()
  )
  if not present:
    return DataError(f"{data_dir} holds no data set yet. {build}")
  nearest = difflib.get_close_matches(name, present, n=1)
  return DataError(
    f"{data_dir} has no data set {name!r}; it has {', '.join(present)}. "
    + (f"Did you mean {nearest[0]!r}? " if nearest else "")
    + f"Fix `tfds`. {build}"
  )
