"""Reads a folder in the layout of Real-IAD into records.

ROOT/realiad_{256,512,1024}/<category>/OK/S0001/NAME.jpg
ROOT/realiad_{256,512,1024}/<category>/NG/<defect>/S0001/NAME.{jpg,png}
ROOT/realiad_jsons/{realiad_jsons,realiad_jsons_sv,...}/<category>.json

The JSON files tell which images are for training and which for testing. There
are several sets of them: for all five views, for one view (sv), and for
training images of which a share, given in the name (fuiad_0.1), is defective.
A view that does not show the defect of its sample counts as normal in these
files, and so it does here.
"""

import dataclasses
import os
import pathlib
import re
from collections.abc import Sequence

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
from inp_former_jax.data.layouts.tree import (
  absolute,
  select_categories,
)
from inp_former_jax.data.records import DEFECTIVE, NORMAL, Dataset, Record
from inp_former_jax.data.text_files import parse_json, read_bytes, shown

JSONS = "realiad_jsons"
NOISY = "realiad_jsons_fuiad"
SPLITS = ("train", "test")
KEYS = ("anomaly_class", "image_path", "mask_path")

_SAMPLE = re.compile(r"((?:[^/]+/)*S\d+)/[^/]*")
_VIEW = re.compile(r".*_(C\d+)[_.][^/]*")  # The last one in a path.


@dataclasses.dataclass(frozen=True)
class _Index:
  """The content of the JSON file of a category.

  Attributes:
    file: The JSON file.
    category: The name of the category, which is that of the file.
    folder: The folder to which the paths in the file are relative.
    normal_class: The class of the entries without a defect.
    entries: The entries of "train" and of "test", as in the file.
  """

  file: pathlib.Path
  category: str
  folder: pathlib.Path
  normal_class: str
  entries: dict[str, list]


def read_realiad(
  root: str | os.PathLike,
  categories: Sequence[str] = (),
  *,
  images: str = "",
  jsons: str = JSONS,
) -> Dataset:
  """Reads Real-IAD as published.

  All of its 151,050 images take 4 s and 190 MB. Of this time, 2 s are spent
  checking that every file exists; on a network drive it takes longer.

  Args:
    root: The folder that holds the folders of images and of JSON files.
    categories: The names of the categories to read, in this order; if empty,
      all of them, sorted by name.
    images: The name of the folder of images; if empty, the one of the largest
      images, according to the folders' names.
    jsons: The name of the folder of JSON files, in ROOT/realiad_jsons or in
      ROOT.

  Returns:
    The records, ordered by category and then as in the JSON file. The training
    records may be defective only if `jsons` begins with "realiad_jsons_fuiad".

  Raises:
    DataError: If a folder or a category does not exist, if a category has no
      training images, if a JSON file is invalid, or if files that it names are
      missing.
  """
  root = absolute(root)
  image_folder = _image_folder(root, images)
  files = {f.stem: f for f in _json_files(root, jsons)}
  noisy = pathlib.PurePath(jsons).name.startswith(NOISY)
  train, test = [], []
  for category, file in select_categories(root, files, categories).items():
    index = _read_index(file, category, image_folder)
    records = _records(index, noisy)
    train += records["train"]
    test += records["test"]
  return Dataset(root.name, tuple(train), tuple(test))


def _image_folder(root: pathlib.Path, images: str) -> pathlib.Path:
  if not root.is_dir():
    found = "is not a folder" if root.exists() else "does not exist"
    raise DataError(f"{root} {found}; expected Real-IAD. Check `root`.")
  if images:
    if (root / images).is_dir():
      return root / images
  else:
    sizes = {
      int(match[1]): folder
      for folder in subfolders(root)
      if (match := re.fullmatch(r"realiad_(\d+)", folder.name))
    }
    if sizes:
      return sizes[max(sizes)]
  raise DataError(
    f"{root} has no folder {images or 'realiad_256, realiad_512 or the like'} "
    f"of images; {_folders_found(root)}. Unpack the images there, or point "
    "`root` at the folder that holds it."
  )


def _json_files(root: pathlib.Path, jsons: str) -> list[pathlib.Path]:
  """Returns the JSON files of all categories, sorted by name."""
  # The published layout comes first: its ROOT/realiad_jsons holds only folders.
  # Some copies leave out that level.
  for folder in (root / JSONS / jsons, root / jsons):
    files = sorted(folder.glob("[!.]*.json"))
    if files:
      return files
  raise DataError(
    f"{root} has no JSON files in {JSONS}/{jsons} or {jsons}; "
    f"{_folders_found(root, root / JSONS)}. Unpack the JSON files there, or "
    "name one of the folders."
  )


def _folders_found(*folders: pathlib.Path) -> str:
  """Lists for an error what folders contain, relative to the first of them."""
  names = [
    str(found.relative_to(folders[0]))
    for folder in folders
    if folder.is_dir()
    for found in subfolders(folder)
  ]
  return "found " + (", ".join(names[:12]) or "no folder at all")


def _read_index(
  file: pathlib.Path, category: str, image_folder: pathlib.Path
) -> _Index:
  content = _read_json(file)
  name = str(file)  # Converted once rather than for every entry.
  for split in SPLITS:
    if not isinstance(content.get(split), list):
      raise DataError(
        f"{file} has no list {split!r}; found the keys "
        f"{', '.join([*content][:8]) or '(none)'}, expected meta, train and "
        "test. Copy the file again."
      )
    for number, entry in enumerate(content[split]):
      _check_entry(f"{name}, {split}[{number}]", entry)
  if not content["train"]:
    raise DataError(
      f"{file} has no training images: its list train is empty. Leave "
      f"{category!r} out with `categories`."
    )
  prefix = _meta(content, file, "prefix", "")
  normal_class = _meta(content, file, "normal_class", "OK")
  if prefix:
    folder = resolve_within(image_folder, prefix, f"{file}, meta.prefix")
  else:
    first = content["train"][0]["image_path"]
    folder = _start_of_paths(image_folder, category, first)
  entries = {split: content[split] for split in SPLITS}
  return _Index(file, category, folder, normal_class, entries)


def _read_json(file: pathlib.Path) -> dict:
  content = parse_json(read_bytes(file), str(file))
  if not isinstance(content, dict):
    raise DataError(
      f"{file} holds a {type(content).__name__}; expected an object with the "
      "keys meta, train and test. Copy the file again."
    )
  return content


def _check_entry(where: str, entry: object) -> None:
  if not isinstance(entry, dict):
    raise DataError(f"{where}: is {shown(entry)}; expected an object. Fix it.")
  for key in KEYS:
    if key not in entry:
      raise DataError(
        f"{where}: has no key {key!r}; found "
        f"{', '.join([*entry][:8]) or '(none)'}, expected "
        f"{', '.join(KEYS)}. Fix the entry, or copy the file again."
      )
    value = entry[key]
    missing_mask = key == "mask_path" and value is None
    if not missing_mask and not (isinstance(value, str) and value):
      raise DataError(
        f"{where}: {key} is {shown(value)}; expected a string"
        f"{' or null' if key == 'mask_path' else ''}. Fix the entry."
      )


def _meta(content: dict, file: pathlib.Path, key: str, default: str) -> str:
  """Returns a value of the part meta, or the default if it is missing."""
  meta = content.get("meta") or {}
  if not isinstance(meta, dict):
    raise DataError(
      f"{file}: meta is {shown(meta)}; expected an object. Copy the file again."
    )
  value = meta.get(key) or default
  if not isinstance(value, str):
    raise DataError(
      f"{file}: meta.{key} is {shown(value)}; expected a string. Copy the file "
      "again."
    )
  return value


def _start_of_paths(
  image_folder: pathlib.Path, category: str, first: str
) -> pathlib.Path:
  """Returns the folder of the relative paths in a JSON file without prefix.

  Published files have a prefix. Of the copies without one, some include the
  category in every path and some do not, which only the disk can tell.
  """
  if not (image_folder / category / first).is_file():
    if (image_folder / first).is_file():
      return image_folder
  return image_folder / category


def _records(index: _Index, noisy: bool) -> dict[str, list[Record]]:
  """Returns the records of a category by split; checks that all files exist."""
  name = str(index.file)
  records: dict[str, list[Record]] = {}
  seen: dict[ImageFile, str] = {}
  for split, entries in index.entries.items():
    if noisy:
      # Training that uses no labels may test on the training images.
      seen = {}
    records[split] = []
    for number, entry in enumerate(entries):
      where = f"{name}, {split}[{number}]"
      record = _record(index, where, entry)
      require_once(record.image, where, seen)
      if split == "train" and record.label == DEFECTIVE and not noisy:
        raise DataError(
          f"{where}: {entry['image_path']} has the class {record.defect!r}; "
          f"expected only {index.normal_class!r} among the training images. "
          "Remove the entry. Only folders of JSON files with names like "
          f"{NOISY}_0.1 may list defective training images."
        )
      records[split].append(record)
  require_files(
    (file for part in records.values() for r in part for file in r.paths),
    name,
  )
  return records


def _record(index: _Index, where: str, entry: dict) -> Record:
  path, mask = entry["image_path"], entry["mask_path"]
  normal = entry["anomaly_class"] in ("OK", index.normal_class)
  if normal and mask:
    raise DataError(
      f"{where}: {path} is normal but has the mask {mask}; expected masks only "
      "for defective images. Fix the class, or remove the mask."
    )
  sample = _SAMPLE.fullmatch(path.removeprefix(f"{index.category}/"))
  view = _VIEW.fullmatch(path)
  return Record(
    image=resolve_within(index.folder, path, where),
    category=index.category,
    label=NORMAL if normal else DEFECTIVE,
    defect="good" if normal else entry["anomaly_class"],
    masks=(resolve_within(index.folder, mask, where),) if mask else (),
    sample=sample[1] if sample else "",
    view=view[1] if view else "",
  )
