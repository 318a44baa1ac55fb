"""Reads the masks that mark the defective pixels of images."""

import functools
from collections.abc import Sequence
from typing import cast

import numpy as np
from PIL import Image, ImageChops

from inp_former_jax.data.errors import DataError
from inp_former_jax.data.image_files import (
  ImageSource,
  open_image_file,
  printable,
)
from inp_former_jax.data.pixel_limits import decoding
from inp_former_jax.data.records import BRIGHT, NON_ZERO
from inp_former_jax.data.transforms import (
  Preprocessing,
  decode,
  readable,
  resize_and_crop,
)


def load_mask(
  paths: Sequence[ImageSource],
  preprocessing: Preprocessing,
  evaluation_size: int,
  *,
  values: str = BRIGHT,
  image_path: ImageSource | None = None,
) -> np.ndarray:
  """Decodes, resizes and crops the mask of an image for evaluation.

  Args:
    paths: The mask files; a pixel is defective if any of them marks it.
    preprocessing: The sizes to resize and crop to, the same as for the image.
    evaluation_size: S, the side of the result in pixels.
    values: Which pixels of a file are defective, see `Record.mask_values`.
    image_path: The image whose size the masks must have; None skips the check.

  Returns:
    The mask, (S, S) bool, True where the image is defective.

  Raises:
    DataError: If a file cannot be decoded, differs in size from the image, or
      has pixels that are not 0 but none that is brighter than half.
  """
  mask = decode_mask(paths, values=values, image_path=image_path)
  return binary_mask(
    np.asarray(resize_and_crop(mask, preprocessing)), evaluation_size
  )


def decode_mask(
  paths: Sequence[ImageSource],
  *,
  values: str = BRIGHT,
  image_path: ImageSource | None = None,
) -> Image.Image:
  """Reads the mask of an image at its own size.

  Args:
    paths: The mask files; a pixel is defective if any of them marks it.
    values: Which pixels of a file are defective, see `Record.mask_values`.
    image_path: The image whose size the masks must have; None skips the check.

  Returns:
    The mask, of mode "L", brighter than half where the image is defective.

  Raises:
    DataError: As for `load_mask`.
  """
  masks = [_read_mask(path, values, image_path) for path in paths]
  return functools.reduce(ImageChops.lighter, masks)


def _read_mask(
  path: ImageSource, values: str, image_path: ImageSource | None
) -> Image.Image:
  """Reads a mask as 8-bit grey; NON_ZERO maps all values but 0 to 255."""
  if values == NON_ZERO:
    mask = _non_zero(path)
  else:
    mask = decode(path, "L")
  if image_path is not None:
    with readable(image_path), open_image_file(image_path) as image:
      size = image.size
    if mask.size != size:
      raise DataError(
        f"The mask {printable(path)} is {mask.width}x{mask.height} pixels, its "
        f"image {printable(image_path)} is {size[0]}x{size[1]} (width x "
        "height); expected the same size. Draw the mask on the image as it is "
        "stored."
      )
  largest = brightest(mask)
  if 0 < largest < 128:
    raise DataError(
      f"The mask {printable(path)} has no pixel brighter than {largest} of "
      "255; expected 0 for normal and 255 for defective pixels. If it holds "
      "class numbers, write 255 where they are not 0."
    )
  return mask


def brightest(grey: Image.Image) -> int:
  """Returns the largest value, in [0, 255], of an image of mode "L"."""
  # Pillow's return type also covers floats and images of several bands.
  return cast(tuple[int, int], grey.getextrema())[1]


def _non_zero(path: ImageSource) -> Image.Image:
  """Returns 255 where the stored value or palette index is not 0, else 0."""
  with readable(path), open_image_file(path) as image, decoding(image):
    stored = np.asarray(image)
  if stored.ndim == 3:
    stored = stored[..., :3].any(axis=-1)
  return Image.fromarray(np.where(stored != 0, 255, 0).astype(np.uint8))


def binary_mask(mask: np.ndarray, size: int) -> np.ndarray:
  """Resizes a mask to the evaluation's size and applies the threshold.

  The nearest neighbour of row i is floor(i * Hc / S), and so for columns.

  Args:
    mask: The mask that `resize_and_crop` returns, (Hc, Wc) uint8.
    size: S, the side of the result in pixels.

  Returns:
    The binary mask, (S, S) bool, True where mask / 255 > 0.5.
  """
  rows, columns = (np.arange(size) * side // size for side in mask.shape)
  return mask[np.ix_(rows, columns)] > 127
