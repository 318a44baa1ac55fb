"""Reads a folder in either of the two layouts of VisA into records.

As published, a list tells which images are for training and for testing:
ROOT/split_csv/1cls.csv
ROOT/<category>/Data/Images/{Normal,Anomaly}/NAME.JPG
ROOT/<category>/Data/Masks/Anomaly/NAME.png

As rearranged by the publishers' own script, with or without the level `1cls`:
ROOT/1cls/<category>/train/good/NAME.JPG
ROOT/1cls/<category>/test/{good,bad}/NAME.JPG
ROOT/1cls/<category>/ground_truth/bad/NAME.png

Both layouts give the same records in the same order.
"""

import csv
import dataclasses
import io
import os
import pathlib
from collections.abc import Iterator, Sequence

from inp_former_jax.data.errors import DataError
from inp_former_jax.data.image_files import ImageFile
from inp_former_jax.data.layouts.entries import (
  require_files,
  require_once,
  resolve_within,
)
from inp_former_jax.data.layouts.listing import (
  subfolders,
)
from inp_former_jax.data.layouts.mvtec import read_mvtec
from inp_former_jax.data.layouts.tree import (
  absolute,
  select_categories,
)
from inp_former_jax.data.names import require_name
from inp_former_jax.data.records import (
  DEFECTIVE,
  NON_ZERO,
  NORMAL,
  Dataset,
  Record,
)
from inp_former_jax.data.text_files import read_bytes

SPLIT = "split_csv/1cls.csv"
COLUMNS = ("object", "split", "label", "image", "mask")
# VisA does not distinguish kinds of defects; this is the script's name for all.
_DEFECT = "bad"
_Row = tuple[str, dict[str, str]]


def read_visa(
  root: str | os.PathLike, categories: Sequence[str] = ()
) -> Dataset:
  """Reads VisA, as published or as prepared by the publishers' script.

  If both forms are present, the prepared one is read.

  Args:
    root: The folder of the data set.
    categories: The names of the categories to read, in this order; if empty,
      all of them, sorted by name.

  Returns:
    The records, ordered by category and then by path.

  Raises:
    DataError: If the folder or a category does not exist, if the folder is in
      neither form, if a category has no training images, if the list of images
      is invalid, or if files that it names are missing.
  """
  root = absolute(root)
  prepared = root / "1cls"
  if prepared.is_dir():
    return _read_prepared(prepared, categories)
  if os.path.lexists(root / SPLIT):
    return _read_raw(root, categories)
  _require_prepared(root)
  return _read_prepared(root, categories)


def _require_prepared(root: pathlib.Path) -> None:
  """Raises DataError if a folder is not in the prepared form."""
  if not root.is_dir():
    found = "is not a folder" if root.exists() else "does not exist"
    raise DataError(f"{root} {found}; expected VisA. Check `root`.")
  folders = subfolders(root)
  if any((folder / "Data" / "Images").is_dir() for folder in folders):
    raise DataError(
      f"{root} is VisA as published, but has no {SPLIT}; expected this list "
      "of the training and test images. Copy it from the archive."
    )
  if not any((folder / "train").is_dir() for folder in (root, *folders)):
    names = ", ".join(folder.name for folder in folders[:8])
    raise DataError(
      f"{root} is not VisA; found {names and 'the folders '}"
      f"{names or 'no folder at all'}, expected {SPLIT} and "
      "<category>/Data/Images/ as published, or <category>/train/good/ as "
      "prepared. Point `root` at the folder that holds them."
    )


def _read_prepared(root: pathlib.Path, categories: Sequence[str]) -> Dataset:
  dataset = read_mvtec(root, categories)
  name = root.parent.name if root.name == "1cls" else root.name
  return dataclasses.replace(
    dataset,
    name=name,
    train=_with_mask_values(dataset.train),
    test=_with_mask_values(dataset.test),
  )


def _with_mask_values(records: Sequence[Record]) -> tuple[Record, ...]:
  # The script writes 255, but some copies in circulation have 1.
  return tuple(dataclasses.replace(r, mask_values=NON_ZERO) for r in records)


def _read_raw(root: pathlib.Path, categories: Sequence[str]) -> Dataset:
  file = root / SPLIT
  present: dict[str, list[_Row]] = {}
  for where, row in _read_split(file):
    category = require_name(row["object"], "category", where)
    present.setdefault(category, []).append((where, row))
  present = dict(sorted(present.items()))
  if not present:
    raise DataError(
      f"{file} lists no images; expected one line per image. Copy it from the "
      "archive of VisA."
    )
  seen: dict[ImageFile, str] = {}
  train, test = [], []
  for category, rows in select_categories(root, present, categories).items():
    records = _raw_records(root, rows, seen)
    if not records["train"]:
      raise DataError(
        f"{file} has no training images of the category {category!r}; expected "
        "lines with the split train. Add some, or leave the category out with "
        "`categories`."
      )
    train += records["train"]
    test += records["test"]
  require_files(
    (path for record in train + test for path in record.paths), str(file)
  )
  return Dataset(root.name, tuple(train), tuple(test))


def _read_split(file: pathlib.Path) -> Iterator[_Row]:
  """Yields for each line of the list its place and its values by column."""
  try:
    text = read_bytes(file).decode("utf-8-sig")
    with io.StringIO(text, newline="") as lines:
      reader = csv.DictReader(lines, strict=True)
      columns = reader.fieldnames or []
      if sorted(columns) != sorted(COLUMNS):
        raise DataError(
          f"{file} has the columns {', '.join(columns[:8]) or '(none)'}; "
          f"expected {', '.join(COLUMNS)}. Copy it from the archive of VisA."
        )
      for row in reader:
        where = f"{file}, line {reader.line_num}"
        if None in row or None in row.values():
          raise DataError(
            f"{where}: has more or fewer values than the {len(columns)} "
            f"columns {', '.join(columns)}. Fix the line."
          )
        yield where, row
  except (csv.Error, UnicodeDecodeError) as error:
    raise DataError(
      f"{file} cannot be read: {error}; expected a comma-separated table in "
      "UTF-8. Copy it from the archive of VisA."
    ) from error


def _raw_records(
  root: pathlib.Path, rows: Sequence[_Row], seen: dict[ImageFile, str]
) -> dict[str, list[Record]]:
  """Returns the records of a category by split, each split sorted by path."""
  records: dict[str, list[Record]] = {"train": [], "test": []}
  for where, row in rows:
    _check_row(where, row)
    record = _raw_record(root, where, row)
    require_once(record.image, where, seen)
    records[row["split"]].append(record)
  for split in records.values():
    split.sort(key=lambda record: record.paths[0])
  return records


def _check_row(where: str, row: dict[str, str]) -> None:
  for column, values in (
    ("split", ("train", "test")),
    ("label", ("normal", "anomaly")),
  ):
    if row[column] not in values:
      raise DataError(
        f"{where}: the {column} is {row[column]!r}; expected "
        f"{' or '.join(values)}. Fix the line."
      )
  if row["split"] == "train" and row["label"] == "anomaly":
    raise DataError(
      f"{where}: {row['image']} is an anomaly in the split train; expected "
      f"only normal images there, as in {SPLIT} of the archive. Change its "
      "split to test."
    )
  if row["mask"] and row["label"] == "normal":
    raise DataError(
      f"{where}: {row['image']} is normal but has the mask {row['mask']}; "
      "expected masks only for anomalies. Fix the label, or remove the mask."
    )


def _raw_record(root: pathlib.Path, where: str, row: dict[str, str]) -> Record:
  defective = row["label"] == "anomaly"
  return Record(
    image=resolve_within(root, row["image"], where),
    category=row["object"],
    label=DEFECTIVE if defective else NORMAL,
    defect=_DEFECT if defective else "good",
    masks=(resolve_within(root, row["mask"], where),) if row["mask"] else (),
    mask_values=NON_ZERO,
  )
