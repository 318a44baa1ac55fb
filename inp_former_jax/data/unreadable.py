"""Training in spite of unreadable images: another one takes their place."""

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


@dataclasses.dataclass
class SkippingUnreadable:
  """Reads images, and in place of an unreadable one the next that is readable.

  Which image that is depends on the records alone, so that batches keep their
  sizes and a resumed run sees the same images as one that was not stopped.

  Attributes:
    load: A picklable function from an image file to its pixels.
    images: The images of the records, each once, in their order.
    list_file: The file to which every process appends the name of an unreadable
      image and the error, as a line of JSON.
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
    # In one write, so that lines of several processes do not mix.
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
    file = os.open(self.list_file, flags, 0o666)
    try:
      os.write(file, line.encode())
    finally:
      os.close(file)


def skipping_unreadable(
  records: Sequence[Record],
  load: Callable[[ImageFile], np.ndarray],
  folder: pathlib.Path,
) -> SkippingUnreadable:
  """Makes a function that reads images skip the unreadable ones.

  Args:
    records: The images to train on.
    load: A picklable function from the image file of a record to its pixels.
    folder: The folder that gets the list of unreadable images.
  """
  images = tuple(dict.fromkeys(record.image for record in records))
  return SkippingUnreadable(load, images, folder / LIST)


def unreadable_images(folder: pathlib.Path) -> dict[str, str]:
  """Returns the errors of the images that have been skipped, by their names.

  Args:
    folder: The folder that `skipping_unreadable` was given.
  """
  path = folder / LIST
  if not path.exists():
    return {}
  lines = path.read_text(encoding="utf-8").splitlines()
  found = [json.loads(line) for line in lines]
  return {entry["image"]: entry["error"] for entry in found}
