"""Reads your own images from a list, split.csv or split.jsonl, into records.

The list has one line per image. In split.csv the first line names the columns,
separated by commas or semicolons; in split.jsonl every line is an object.

image     the image file, relative to the folder of the list; required
label     normal, good, ok or 0; anomaly, defect, abnormal, bad, ng or 1
          (default: normal)
mask      the file that marks the defective pixels (default: none)
category  the kind of product (default: the name of the list's folder)
split     train or test (default: train for normal images, else test)
defect    the kind of defect (default: defect)

A column, cell or key that is missing, empty or null has the default value.
Label and split may be in upper or lower case.
"""

import csv
import dataclasses
import difflib
import io
import json
import os
import pathlib
from collections.abc import Collection, Iterator, Sequence

from inp_former_jax.data.errors import DataError
from inp_former_jax.data.layouts.entries import (
  require_once,
  resolve_within,
)
from inp_former_jax.data.names import require_name
from inp_former_jax.data.records import DEFECTIVE, NORMAL, Record
from inp_former_jax.data.text_files import parse_json, read_bytes, shown

NAMES = ("split.csv", "split.jsonl")
COLUMNS = ("image", "label", "mask", "category", "split", "defect")
LABELS = dict.fromkeys(("normal", "good", "ok", "0"), NORMAL) | dict.fromkeys(
  ("anomaly", "defect", "abnormal", "bad", "ng", "1"), DEFECTIVE
)
SPLITS = ("train", "test")


@dataclasses.dataclass(frozen=True)
class _Row:
  """A line of the list: its place, and its non-empty cells by column."""

  where: str
  cells: dict[str, str]


def find(root: pathlib.Path) -> pathlib.Path | None:
  """Finds the list in a folder.

  Args:
    root: The folder of a data set.

  Returns:
    The file `split.csv` or `split.jsonl`, or None if the folder has neither.

  Raises:
    DataError: If the folder has both.
  """
  found = [root / name for name in NAMES if os.path.lexists(root / name)]
  if len(found) > 1:
    raise DataError(
      f"There are two lists, {found[0]} and {found[1]}; expected one. Remove "
      "one of them."
    )
  return found[0] if found else None


def read(path: pathlib.Path) -> dict[str, tuple[list[Record], list[Record]]]:
  """Reads the records of a list.

  Args:
    path: The absolute path of the list, ending in .csv or .jsonl.

  Returns:
    A dict, sorted by name, from each category to its training and its test
    records, in the order of the list.

  Raises:
    DataError: If a line is invalid, names a file that does not exist or an
      image that was listed before, if the list is empty, or if a category has
      no training images.
  """
  rows = _csv_rows(path) if path.suffix == ".csv" else _jsonl_rows(path)
  categories, seen = {}, {}
  for row in rows:
    record, split = _record(row, path.parent)
    require_once(record.image, row.where, seen)
    parts = categories.setdefault(record.category, ([], []))
    parts[SPLITS.index(split)].append(record)
  if not seen:
    raise DataError(f"{path} lists no images; expected one line per image.")
  for category, (train, test) in categories.items():
    if not train:
      raise DataError(
        f"{path} lists no training images for the category {category!r}, only "
        f"{len(test)} test images, e.g. {test[0].image.name}. Add normal "
        "images with the split train, or remove these."
      )
  return dict(sorted(categories.items()))


def _csv_rows(path: pathlib.Path) -> Iterator[_Row]:
  text = _text(path)
  first = text.partition("\n")[0]
  # Excel writes semicolons where the comma is the decimal sign.
  delimiter = ";" if ";" in first and "," not in first else ","
  lines = csv.reader(
    io.StringIO(text, newline=""), delimiter=delimiter, strict=True
  )
  header = None
  try:
    for fields in lines:
      fields = [field.strip() for field in fields]
      where = f"{path}, line {lines.line_num}"
      if not any(fields):
        continue
      if header is None:
        header = fields
        _check_header(header, where)
        continue
      if len(fields) != len(header):
        raise DataError(
          f"{where} has {len(fields)} cells, expected {len(header)}: "
          f"{', '.join(header)}. Fix the line; a cell that contains "
          f"{delimiter!r} needs quotes."
        )
      cells = zip(header, fields, strict=True)
      yield _Row(where, {name: cell for name, cell in cells if cell})
  except csv.Error as error:
    raise DataError(
      f"{path}, line {lines.line_num} is not valid CSV: {error}. Fix the line."
    ) from error


def _jsonl_rows(path: pathlib.Path) -> Iterator[_Row]:
  for number, line in enumerate(_text(path).split("\n"), 1):
    if not line.strip():
      continue
    where = f"{path}, line {number}"
    content = parse_json(line, where)
    if not isinstance(content, dict):
      raise DataError(
        f"{where} is {line.strip()[:40]!r}; expected an object, such as "
        '{"image": "a.png"}. Fix the line.'
      )
    _check_columns(list(content), where)
    cells = {k: _cell(k, v, where) for k, v in content.items()}
    yield _Row(where, {name: cell for name, cell in cells.items() if cell})


def _text(path: pathlib.Path) -> str:
  content = read_bytes(path)
  try:
    return content.decode("utf-8-sig")
  except UnicodeDecodeError as error:
    line = content.count(b"\n", 0, error.start) + 1
    raise DataError(
      f"{path}, line {line} is not UTF-8 text. Save the list as UTF-8 (in "
      "Excel: CSV UTF-8)."
    ) from error


def _check_header(names: Sequence[str], where: str) -> None:
  _check_columns(names, where)
  for name in names:
    if names.count(name) > 1:
      raise DataError(
        f"{where} names the column {name!r} twice; expected every column once. "
        "Remove one of the two."
      )
  if "image" not in names:
    raise DataError(
      f"{where} has no column image; found {', '.join(names[:8])}. Name the "
      "columns in the first line."
    )


def _check_columns(names: Sequence[str], where: str) -> None:
  unknown = [name for name in names if name not in COLUMNS]
  if not unknown:
    return
  nearest = difflib.get_close_matches(unknown[0].lower(), COLUMNS, n=1)
  raise DataError(
    f"{where}: unknown columns {', '.join(map(shown, unknown[:8]))}; the "
    f"columns are {', '.join(COLUMNS)}. "
    + (f"Did you mean {nearest[0]!r}? " if nearest else "")
    + "Rename or remove them."
  )


def _cell(column: str, value: object, where: str) -> str:
  """Converts a JSON value to the text that a CSV file would have."""
  if value is None:
    return ""
  # True and False are integers in Python, but they are not valid here.
  if isinstance(value, bool) or not isinstance(value, str | int):
    raise DataError(
      f"{where}: {column} is {json.dumps(value)[:40]}; expected a string. Fix "
      "the line."
    )
  return str(value).strip()


def _record(row: _Row, root: pathlib.Path) -> tuple[Record, str]:
  """Returns the record of a line and its split."""
  label = LABELS[_choice(row, "label", "normal", LABELS)]
  default = "train" if label == NORMAL else "test"
  split = _choice(row, "split", default, SPLITS)
  if "image" not in row.cells:
    raise DataError(
      f"{row.where} names no image; expected the path of one. Add it, or "
      "remove the line."
    )
  image = _file(row, "image", root)
  defect = row.cells.get("defect", "defect" if label else "good")
  require_name(defect, "kind of defect", row.where)
  if label == NORMAL:
    _check_normal(row, defect)
  elif split == "train":
    raise DataError(
      f"{row.where}: {image} is defective but in the split train; expected "
      "only normal images there. Fix its label or its split."
    )
  elif LABELS.get(defect.lower()) == NORMAL:
    raise DataError(
      f"{row.where}: {image} is defective but its kind of defect is "
      f"{defect!r}. Fix its label or its defect."
    )
  masks = (_file(row, "mask", root),) if "mask" in row.cells else ()
  category = root.name
  if "category" in row.cells:
    category = require_name(row.cells["category"], "category", row.where)
  if label == NORMAL:
    return Record(image, category, label, "good"), split
  return Record(image, category, label, defect, masks), split


def _check_normal(row: _Row, defect: str) -> None:
  """Checks that a normal image has no mask and no defect.

  A mask or a defect without a label means that the label was forgotten.
  """
  claims = "mask" if "mask" in row.cells else "defect"
  if claims == "mask" or LABELS.get(defect.lower()) != NORMAL:
    given = "" if "label" in row.cells else " (because none is given)"
    raise DataError(
      f"{row.where}: the label is normal{given} but the {claims} is "
      f"{shown(row.cells[claims])}. Set the label to anomaly, or leave the "
      f"{claims} empty."
    )


def _choice(
  row: _Row, column: str, default: str, choices: Collection[str]
) -> str:
  value = row.cells.get(column, default).lower()
  if value not in choices:
    raise DataError(
      f"{row.where}: {column} is {shown(row.cells[column])}; expected one of "
      f"{', '.join(choices)}. Fix the line."
    )
  return value


def _file(row: _Row, column: str, root: pathlib.Path) -> pathlib.Path:
  path = resolve_within(root, row.cells[column], row.where)
  # Unlike this, pathlib's is_file raises if a name is too long.
  if not os.path.isfile(path):
    found = "is a folder" if os.path.isdir(path) else "does not exist"
    raise DataError(
      f"{row.where}: the {column} {path} {found}. Fix the line, or put the "
      "file there."
    )
  return path
