"""Real images, on which an exported model is compared with its checkpoint."""

import concurrent.futures
import dataclasses
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from inp_former_jax.data.errors import DataError
from inp_former_jax.data.layouts.tree import EXTENSIONS
from inp_former_jax.data.records import Record
from inp_former_jax.data.transforms import Preprocessing, load_image

_THREADS = 16


@dataclasses.dataclass(frozen=True)
class Samples:
  """Images, and their labels where they are known.

  Attributes:
    images: The images, (n, H, W, 3) uint8, resized and cropped.
    records: The images' records with category and label, if all have one;
      otherwise empty.
  """

  images: np.ndarray
  records: tuple[Record, ...] = ()


def find_images(paths: Sequence[pathlib.Path]) -> list[pathlib.Path]:
  """Finds images in folders and all folders within.

  Args:
    paths: Folders, or image files.

  Returns:
    The files, sorted within each folder.

  Raises:
    DataError: If a path does not exist, or a folder holds no image.
  """
  files: list[pathlib.Path] = []
  for path in paths:
    if path.is_file():
      files.append(path)
      continue
    found = sorted(
      file
      for file in path.rglob("*")
      if file.suffix.lower() in EXTENSIONS and file.is_file()
    )
    if not found:
      reason = "holds no image" if path.is_dir() else "does not exist"
      endings = ", ".join(EXTENSIONS)
      raise DataError(f"{path} {reason}; expected files of {endings}.")
    files += found
  return files


def with_records(
  files: Sequence[pathlib.Path], records: Sequence[Record]
) -> list[pathlib.Path] | list[Record]:
  """Looks up the labels of images.

  Args:
    files: The image files.
    records: Records of labelled images.

  Returns:
    The records of the files; the files if any has none.
  """
  by_path = {
    record.image.resolve(): record
    for record in records
    if isinstance(record.image, pathlib.Path)
  }
  found = [by_path.get(file.resolve()) for file in files]
  labelled = [record for record in found if record is not None]
  return labelled if len(labelled) == len(found) else list(files)


def spread(items: Sequence, most: int) -> list:
  """Picks items that are spread evenly over all.

  Args:
    items: The items.
    most: The largest number to pick; 0 for all.
  """
  if not most or len(items) <= most:
    return list(items)
  indices = np.linspace(0, len(items) - 1, most).round().astype(int)
  return [items[i] for i in indices]


def load_samples(
  items: Sequence[pathlib.Path] | Sequence[Record], sizes: Preprocessing
) -> Samples:
  """Reads images.

  Args:
    items: Image files, or records of them; at least one.
    sizes: The sizes to resize and crop to.

  Returns:
    The images in this order.

  Raises:
    DataError: If a file cannot be read.
  """
  records = tuple(item for item in items if isinstance(item, Record))
  sources = [i.image if isinstance(i, Record) else i for i in items]
  with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
    images = list(pool.map(lambda path: load_image(path, sizes), sources))
  return Samples(np.stack(images), records)


def labels_by_category(
  records: Sequence[Record],
) -> Mapping[str, tuple[np.ndarray, np.ndarray]]:
  """Returns indices and labels of the images of each category with both."""
  found = {}
  for category in dict.fromkeys(record.category for record in records):
    indices = [i for i, r in enumerate(records) if r.category == category]
    labels = np.array([records[i].label for i in indices])
    if 0 < labels.sum() < len(labels):
      found[category] = np.array(indices), labels
  return found
