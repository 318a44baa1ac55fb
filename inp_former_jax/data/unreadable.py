"""Skips unreadable training images: the next readable one replaces each."""

import dataclasses
import json
import os
import pathlib
from collections.abc import Callable, Sequence

import numpy as np

from inp_former_jax.data.errors import DataError
from inp_former_jax.data.image_files import ImageFile
from inp_former_jax.data.records import Record

LIST = "unreadable_images.jsonl"
_LISTS = "unreadable_images*.jsonl"  # those of all processes


@dataclasses.dataclass
class SkippingUnreadable:
  """Reads images, and in place of an unreadable one the next that is readable.

  Which image that is depends on the records alone, so that batches keep their
  sizes and a resumed run sees the same images as one that was not stopped.

  Attributes:
    load: A picklable function from an image file to its pixels.
    images: The images of the records, each once, in their order.
    list_file: The file to which this process and its workers append the name of
      an unreadable image and the error, as a line of JSON.
  """

  load: Callable[[ImageFile], np.ndarray]
  images: Sequence[ImageFile]
  list_file: pathlib.Path

  def __post_init__(self):
    """Numbers the images."""
    self._places = {image: i for i, image in enumerate(self.images)}
    self._unreadable: set[ImageFile] = set()

  def __call__(self, file: ImageFile) -> np.ndarray:
    """Returns an image, or the next readable one after it.

    Args:
      file: The file, one of `images`.

    Returns:
      The image, (Hc, Wc, 3) uint8.

    Raises:
      DataError: If no image can be read.
    """
    place = self._places[file]
    for image in (*self.images[place:], *self.images[:place]):
      if image in self._unreadable:
        continue
      try:
        return self.load(image)
      except DataError as error:
        self._unreadable.add(image)
        self._note(image, error)
    raise DataError(
      f"None of the {len(self.images)} training images can be read; "
      f"{self.list_file} says why."
    )

  def _note(self, image: ImageFile, error: DataError) -> None:
    line = json.dumps({"image": str(image), "error": str(error)}) + "\n"
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT
    file = os.open(self.list_file, flags, 0o666)
    try:
      # A crash of the machine may have cut off the last line.
      if os.lseek(file, 0, os.SEEK_END):
        os.lseek(file, -1, os.SEEK_END)
        line = line if os.read(file, 1) == b"\n" else "\n" + line
      # In one write, so that lines of several workers do not mix.
      os.write(file, line.encode())
    finally:
      os.close(file)


def skipping_unreadable(
  records: Sequence[Record],
  load: Callable[[ImageFile], np.ndarray],
  folder: pathlib.Path,
  process_index: int = 0,
) -> SkippingUnreadable:
  """Makes a function that reads images skip the unreadable ones.

  Each process has a list of its own, as hosts that append to one file on a
  network drive overwrite each other's lines.

  Args:
    records: The images to train on.
    load: A picklable function from the image file of a record to its pixels.
    folder: The folder that gets the list of unreadable images: LIST, or after
      the first process unreadable_images.1.jsonl and so on.
    process_index: The number of this process.
  """
  images = tuple(dict.fromkeys(record.image for record in records))
  path = folder / LIST
  if process_index:
    path = path.with_suffix(f".{process_index}{path.suffix}")
  return SkippingUnreadable(load, images, path)


def unreadable_images(folder: pathlib.Path) -> dict[str, str]:
  """Returns the errors of the images that have been skipped, by their names.

  Args:
    folder: The folder that `skipping_unreadable` was given, by all processes.
  """
  found: dict[str, str] = {}
  for path in sorted(folder.glob(_LISTS)):
    for line in path.read_text(encoding="utf-8").splitlines():
      try:
        entry = json.loads(line)
      except json.JSONDecodeError:
        continue  # cut off by a crash; the resumed run lists it again
      found[entry["image"]] = entry["error"]
  return found


def describe_skipped(folder: pathlib.Path) -> str:
  """Describes for the user how many images have been skipped.

  Args:
    folder: The folder that `skipping_unreadable` was given, by all processes.

  Returns:
    A line that says where they are listed; empty if there are none.
  """
  number = len(unreadable_images(folder))
  if not number:
    return ""
  lists = ", ".join(sorted(path.name for path in folder.glob(_LISTS)))
  images = "1 training image" if number == 1 else f"{number} training images"
  return f"{images} could not be read; see {lists} in {folder}."
