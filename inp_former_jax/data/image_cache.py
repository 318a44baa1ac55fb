"""Decoded images in a file, each of which is decoded when first asked for."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
from absl import logging

from inp_former_jax.data.cache_key import cache_key, cache_path
from inp_former_jax.data.image_files import ImageFile
from inp_former_jax.data.records import Record
from inp_former_jax.data.row_file import CacheError, RowFile, free_disk
from inp_former_jax.data.transforms import Preprocessing, load_image


@dataclasses.dataclass
class CachedImages:
  """Random access to decoded images, from several threads and processes.

  Attributes:
    numbers: The row of each image file.
    preprocessing: The sizes to resize and crop to.
    rows: The file that holds what has been decoded.
  """

  numbers: Mapping[ImageFile, int]
  preprocessing: Preprocessing
  rows: RowFile
  _full: bool = False  # whether the disk has refused a row

  def __call__(self, file: ImageFile) -> np.ndarray:
    """Returns an image, and decodes it if that has not happened before.

    Args:
      file: The file, one of `numbers`.

    Returns:
      The image, (Hc, Wc, 3) uint8.

    Raises:
      DataError: If the file cannot be decoded.
    """
    index = self.numbers[file]
    image = self.rows.read(index)
    if image is not None:
      return image
    image = load_image(file, self.preprocessing)
    if not self._full:
      try:
        self.rows.write(index, image)
      except CacheError as error:
        self._full = True  # the training goes on, as slow as without a cache
        logging.warning("%s Images are decoded again until then.", error)
    return image


def cached_images(
  records: Sequence[Record],
  preprocessing: Preprocessing,
  folder: pathlib.Path,
  name: str,
) -> CachedImages:
  """Opens the cache of some images.

  Args:
    records: The images.
    preprocessing: The sizes to resize and crop to.
    folder: The folder of the caches.
    name: The name of the data set.

  Returns:
    The images, with those that have been decoded before.

  Raises:
    CacheError: If the file cannot be written, or the disk has no room for it.
  """
  key = cache_key(records, preprocessing, kind="images")
  rows = RowFile(
    cache_path(folder, name, "images", key),
    key,
    count=len(records),
    shape=(*preprocessing.crop, 3),
    dtype=np.uint8,
  )
  needed = rows.count_missing() * rows.row_bytes
  free = free_disk(folder)
  if needed > free:
    raise CacheError(
      f"The cache of decoded images needs {needed / 1e9:.2f} GB, and the disk "
      f"of {folder} has {free / 1e9:.2f} GB free. Free some space, set "
      "`cache_dir` to a folder on another disk, or `cache`=off."
    )
  numbers = {record.image: i for i, record in enumerate(records)}
  return CachedImages(numbers, preprocessing, rows)
