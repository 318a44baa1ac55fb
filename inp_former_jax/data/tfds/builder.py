"""Writes a data set of any layout as a TFDS data set, without TensorFlow.

It has a few large array_record files instead of very many small files, which
suits network drives and copying to many hosts or into a bucket. They hold the
images and masks byte for byte, so a run on them equals a run on the original
files to the last bit. Other programs can read them by
`tfds.builder_from_directory(FOLDER)` and `as_data_source`. The module `source`
describes the files and reads them.
"""

import contextlib
import dataclasses
import functools
import json
import os
import pathlib
import re
import shutil
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any

import filelock
import numpy as np
import rich.console
import rich.progress

from inp_former_jax.data.errors import DataError
from inp_former_jax.data.image_files import (
  IMAGE,
  MASKS,
  import_tfds,
  require_regular_file,
)
from inp_former_jax.data.layouts.tree import absolute
from inp_former_jax.data.records import Dataset, Record
from inp_former_jax.data.tfds.source import (
  COMMAND,
  FIELDS,
  INDEX,
  PART,
  SPLITS,
  VERSION,
  foreign_entries,
  is_bucket,
  read_index,
  version_folder,
)

# The approximate size of an array_record file; a reader keeps every file open.
SHARD_BYTES = 512 * 2**20

_Lines = dict[str, list[dict[str, Any]]]  # The records in the index by split.


@dataclasses.dataclass(frozen=True)
class BuiltDataset:
  """A TFDS data set that has been built or existed already.

  Attributes:
    name: The name by which it is read.
    folder: The folder of its files.
    records: The number of records of each split that has any.
    num_bytes: The size in bytes of the images and masks of each such split.
    is_new: Whether it was written; False if it existed already.
  """

  name: str
  folder: pathlib.Path
  records: dict[str, int]
  num_bytes: dict[str, int]
  is_new: bool


def build_tfds(
  dataset: Dataset,
  root: str | os.PathLike,
  data_dir: str | os.PathLike,
  name: str = "",
) -> BuiltDataset:
  """Writes a data set as a TFDS data set, which appears whole or not at all.

  Args:
    dataset: The data set to write, with records of files in a folder.
    root: The folder to which the stored names of the files are relative.
    data_dir: The folder of TFDS data sets, on a disk.
    name: The name by which to read the data set; if empty, it is derived from
      the data set's own name.

  Returns:
    The TFDS data set. An existing one that has the same records, of files of
    the same sizes, is left unchanged.

  Raises:
    DataError: If `data_dir` is a bucket, has too little space or holds another
      data set of that name, or if the name is not allowed.
    ImportError: If the extra tfds is not installed.
    OSError: If a file cannot be read.
    RuntimeError: If a file cannot be written.
  """
  import_tfds()
  if is_bucket(data_dir):
    raise DataError(
      f"{data_dir} is a bucket, but array_record can only write to disks. "
      "Build the data set in a folder and copy the folder, e.g. with gcloud "
      "storage cp -r."
    )
  name = name or tfds_name(dataset.name)
  folder = pathlib.Path(version_folder(name, data_dir))
  lines = _lines(dataset, absolute(root))
  with _only_builder(folder.parent):
    is_new = not _is_written(folder, lines)
    if is_new:
      _require_space(folder.parent, lines)
      _write(folder, name, dataset, lines)
  return BuiltDataset(
    name=name,
    folder=folder,
    records={split: len(records) for split, records in lines.items()},
    num_bytes={split: _num_bytes(r) for split, r in lines.items()},
    is_new=is_new,
  )


def tfds_name(name: str) -> str:
  """Converts a name to the nearest one that TFDS allows.

  Args:
    name: The name of a data set, e.g. "MVTec-AD".

  Returns:
    The name in lower-case letters, digits and underscores, beginning with a
    letter, e.g. "mvtec_ad".
  """
  name = re.sub("[^a-z0-9]+", "_", name.lower()).strip("_")
  return name if name[:1].isalpha() else f"data_{name}".strip("_")


def _lines(dataset: Dataset, root: pathlib.Path) -> _Lines:
  """Returns the index without its header, for each split that has records."""
  lines = {
    split: [_line(record, split, root) for record in getattr(dataset, split)]
    for split in SPLITS
  }
  return {split: records for split, records in lines.items() if records}


def _line(record: Record, split: str, root: pathlib.Path) -> dict[str, Any]:
  files = record.paths
  for file in files:
    require_regular_file(file)
  sizes = [os.stat(file).st_size for file in files]
  image, *masks = (
    pathlib.Path(os.path.relpath(file, root)).as_posix() for file in files
  )
  line = {"split": split, "image": image, "masks": masks, "bytes": sizes}
  line |= {name: getattr(record, name) for name in FIELDS}
  try:
    json.dumps(line, ensure_ascii=False).encode()
  except UnicodeEncodeError:
    raise DataError(
      f"The name of {os.fsencode(files[0])!r}, or of its mask, is not in "
      "UTF-8, which TFDS requires. Rename the file or its folder."
    ) from None
  return line


def _num_bytes(records: Sequence[dict[str, Any]]) -> int:
  return sum(sum(record["bytes"]) for record in records)


def _text(lines: _Lines) -> list[str]:
  return [json.dumps(line) for records in lines.values() for line in records]


@contextlib.contextmanager
def _only_builder(home: pathlib.Path) -> Generator[None]:
  """Prevents a second process from writing the same data set."""
  home.mkdir(parents=True, exist_ok=True)
  lock = filelock.FileLock(home / ".building.lock", timeout=0)
  try:
    with lock:
      yield
  except filelock.Timeout:
    raise DataError(
      f"{home} is being built by another process. Wait until it has finished."
    ) from None


def _is_written(folder: pathlib.Path, lines: _Lines) -> bool:
  """Returns whether `folder` holds these records; raises if it holds others."""
  remedy = (
    f"Nothing was written. Use another --name, or remove {folder.parent} to "
    "build the data set again."
  )
  if (folder / INDEX).is_file():
    if read_index(folder)[1:] == _text(lines):
      return True
    raise DataError(
      f"{folder.parent} holds another data set of that name: its records or "
      f"the sizes of their files differ. {remedy}"
    )
  if others := foreign_entries(folder.parent):
    raise DataError(
      f"{folder.parent} holds {', '.join(others[:3])}, which this version of "
      f"{COMMAND} did not write. {remedy}"
    )
  return False


def _require_space(home: pathlib.Path, lines: _Lines) -> None:
  needed = sum(map(_num_bytes, lines.values()))
  free = shutil.disk_usage(home).free
  if needed > free:
    raise DataError(
      f"The data set needs {needed:,} bytes, but {home} has only {free:,} "
      "left. Free some space, or use another --data_dir."
    )


def _write(
  folder: pathlib.Path, name: str, dataset: Dataset, lines: _Lines
) -> None:
  """Writes to a temporary folder and renames it, so `folder` appears whole."""
  part = folder.with_name(PART + folder.name)
  shutil.rmtree(part, ignore_errors=True)  # Left by a build that was killed.
  part.mkdir()
  try:
    _write_examples(part, name, dataset, lines)
    files = {path.name: path.stat().st_size for path in sorted(part.iterdir())}
    header = json.dumps({"name": dataset.name, "files": files})
    text = "\n".join([header, *_text(lines)]) + "\n"
    (part / INDEX).write_text(text, encoding="utf-8")
    part.rename(folder)
  finally:
    shutil.rmtree(part, ignore_errors=True)


def _write_examples(
  folder: pathlib.Path, name: str, dataset: Dataset, lines: _Lines
) -> None:
  """Writes the array_record files and their metadata for TFDS.

  A `tfds.core.GeneratorBasedBuilder` does not serve: it keeps a split in memory
  and, beyond 1 GB, in files that it writes with TensorFlow.
  """
  num_bytes = sum(map(_num_bytes, lines.values()))
  num_records = sum(map(len, lines.values()))
  writer = import_tfds().core.SequentialWriter(
    _dataset_info(folder, name),
    max_examples_per_shard=SHARD_BYTES * num_records // (num_bytes or 1) or 1,
    file_format="array_record",
  )
  writer.initialize_splits(list(lines))
  console = rich.console.Console(stderr=True)
  with rich.progress.Progress(
    console=console, disable=not console.is_terminal
  ) as progress:
    task = progress.add_task(name, total=num_bytes)
    advance = functools.partial(progress.advance, task)
    for split in lines:
      examples = _examples(getattr(dataset, split), lines[split], advance)
      # One call per split, because each call rewrites the metadata.
      writer.add_examples({split: examples})
  writer.close_all()


def _dataset_info(folder: pathlib.Path, name: str) -> Any:
  """Returns the `tfds.core.DatasetInfo` of the examples of `_examples`."""
  tfds = import_tfds()
  text = tfds.features.Text()
  plain: dict[Any, Any] = {str: text, int: tfds.features.Scalar(np.int64)}
  mask = tfds.features.Image(shape=(None, None, 1))
  return tfds.core.DatasetInfo(
    builder=tfds.core.DatasetIdentity(
      name=name,
      version=tfds.core.Version(VERSION),
      data_dir=os.fspath(folder),
      module_name="inp_former_jax.data.tfds_builder",
    ),
    description="Images to train and to test anomaly detection on.",
    features=tfds.features.FeaturesDict(
      {IMAGE: tfds.features.Image(), MASKS: tfds.features.Sequence(mask)}
      | {"path": text, "mask_paths": tfds.features.Sequence(text)}
      | {field: plain[kind] for field, kind in FIELDS.items()}
    ),
    disable_shuffling=True,  # Readers must keep the order.
  )


def _examples(
  records: Sequence[Record],
  lines: Sequence[dict[str, Any]],
  advance: Callable[[int], None],
) -> Iterator[dict[str, Any]]:
  """Yields the records in the form that TFDS takes, with files by name."""
  for record, line in zip(records, lines, strict=True):
    image, *masks = map(os.fspath, record.paths)
    yield {
      IMAGE: image,
      MASKS: masks,
      "path": line["image"],
      "mask_paths": line["masks"],
    } | {field: line[field] for field in FIELDS}
    advance(sum(line["bytes"]))
