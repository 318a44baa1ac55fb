"""Turns image files into uint8 arrays, and those into normalised images.

Decoding, resizing and cropping are done by Pillow on the host, exactly as
torchvision does them for the original. EXIF orientation is ignored, as in the
original, because the masks of public data sets are drawn on the stored pixels.
"""

import contextlib
import dataclasses
from collections.abc import Generator, Iterator
from typing import overload

import jax
import numpy as np
from PIL import Image

from inp_former_jax.data.errors import DataError
from inp_former_jax.data.image_files import (
  ImageSource,
  open_image_file,
  printable,
)
from inp_former_jax.data.pixel_limits import decoding

IMAGENET_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
IMAGENET_STD = np.array([0.229, 0.224, 0.225], np.float32)


@dataclasses.dataclass(frozen=True)
class Preprocessing:
  """The sizes to which an image is resized and cropped for the encoder.

  Attributes:
    resize: The (height, width) in pixels to which the image is resized.
    crop: The (height, width) in pixels of the centre crop of the resized image.

  Raises:
    ValueError: If the crop is empty or larger than the resized image.
  """

  resize: tuple[int, int]
  crop: tuple[int, int]

  @classmethod
  def from_sides(
    cls, resize: int, crop: int, *, resize_width: int = 0, crop_width: int = 0
  ) -> "Preprocessing":
    """Makes a preprocessing from heights and, unless square, widths.

    Args:
      resize: The height in pixels after resizing.
      crop: The height in pixels of the centre crop.
      resize_width: The width in pixels after resizing; 0 means the height.
      crop_width: The width in pixels of the centre crop; 0 means its height.
    """
    return cls(
      resize=(resize, resize_width or resize), crop=(crop, crop_width or crop)
    )

  def __post_init__(self):
    """Checks the sizes."""
    for axis, resize, crop in self._axes():
      if crop < 1:
        raise ValueError(f"The crop's {axis} is {crop}; expected 1 or more.")
      if crop > resize:
        raise ValueError(
          f"The crop's {axis} of {crop} pixels is larger than the {resize} "
          "pixels the image is resized to. Make the crop smaller or the "
          "resize larger."
        )

  def _axes(self) -> Iterator[tuple[str, int, int]]:
    return zip(("height", "width"), self.resize, self.crop, strict=True)

  @property
  def crop_box(self) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of the crop in the resized image."""
    top, left = (crop_start(r, c) for _, r, c in self._axes())
    height, width = self.crop
    return left, top, left + width, top + height

  def require_patches(self, patch_size: int) -> "Preprocessing":
    """Checks that the crop can be divided into whole patches.

    Args:
      patch_size: The side of the encoder's patches in pixels.

    Returns:
      This preprocessing, unchanged.

    Raises:
      ValueError: If a side of the crop is not a multiple of the patch size.
    """
    for axis, _, crop in self._axes():
      if crop % patch_size:
        lower = max(crop // patch_size, 1) * patch_size
        raise ValueError(
          f"The crop's {axis} is {crop} pixels; expected a multiple of the "
          f"patch size {patch_size}. The nearest are {lower} and "
          f"{lower + patch_size}."
        )
    return self


def load_image(path: ImageSource, preprocessing: Preprocessing) -> np.ndarray:
  """Decodes, resizes and crops an image.

  Args:
    path: An image file of any mode; a grey image is repeated over the channels.
    preprocessing: The sizes to resize and crop to.

  Returns:
    The RGB image, (Hc, Wc, 3) uint8.

  Raises:
    DataError: If the file cannot be decoded.
  """
  with _decoded(path, "RGB") as image:
    return np.asarray(resize_and_crop(image, preprocessing))


def decode(path: ImageSource, mode: str) -> Image.Image:
  """Reads an image file.

  Args:
    path: The image file.
    mode: Pillow's name for the mode of the result: "RGB", or "L" for 8-bit
      grey.

  Returns:
    The image in that mode, with 8 bits per channel.

  Raises:
    DataError: If the file cannot be decoded.
  """
  with _decoded(path, mode) as image:
    return image


@contextlib.contextmanager
def _decoded(path: ImageSource, mode: str) -> Generator[Image.Image]:
  """Yields the image while it counts among those that are decoded."""
  with readable(path), open_image_file(path) as image, decoding(image):
    image.load()
    yield to_8_bit(image, mode)


@contextlib.contextmanager
def readable(path: ImageSource) -> Generator[None]:
  """Makes whatever goes wrong with an image file a DataError that names it."""
  try:
    yield
  except DataError:
    raise  # It names the file already.
  # Pillow's plugins raise errors of many types for a damaged file.
  except Exception as error:
    reason = " ".join(str(error).split()) or type(error).__name__
    raise DataError(
      f"{printable(path)} cannot be read as an image: {reason}. Replace the "
      "file, or remove it from the data set."
    ) from error


def to_8_bit(image: Image.Image, mode: str) -> Image.Image:
  """Converts an image of any mode to "RGB" or "L" with 8 bits per channel.

  Of 16-bit grey the high byte is kept, as Pillow does for 16-bit colour;
  Pillow's `convert` would instead turn all values from 255 of 65535 white. If
  a camera does not use the full range, values are not stretched to it, so that
  images stay comparable.

  Args:
    image: An image of any of Pillow's modes.
    mode: The mode of the result, "RGB" or "L".

  Returns:
    The image in that mode, without transparency.

  Raises:
    ValueError: If the range of the image's values is not known.
  """
  if image.mode == "I" or image.mode.startswith("I;16"):
    values = np.asarray(image)
    if values.min() < 0 or values.max() > 65535:
      raise ValueError(
        f"its values range from {values.min()} to {values.max()}, expected "
        "at most 16 bits; convert it"
      )
    image = Image.fromarray((values >> 8).astype(np.uint8))
  elif image.mode == "F":
    raise ValueError(
      "its values are floats of unknown range; convert it to 8 or 16 bits"
    )
  elif image.mode in ("P", "PA") and "transparency" in image.info:
    image = image.convert("RGBA")  # Pillow warns if this step is left out
  return image.convert(mode)


def resize_and_crop(
  image: Image.Image, preprocessing: Preprocessing
) -> Image.Image:
  """Resizes an image (bilinear, antialiased) and takes the centre crop.

  Args:
    image: An image of mode "RGB" or "L".
    preprocessing: The sizes to resize and crop to.

  Returns:
    The crop, in the mode of the image.
  """
  height, width = preprocessing.resize
  image = image.resize((width, height), Image.Resampling.BILINEAR)
  return image.crop(preprocessing.crop_box)


def crop_start(resize: int, crop: int) -> int:
  """Returns the first pixel of a centre crop along an axis.

  Args:
    resize: The number of pixels after resizing.
    crop: The number of pixels of the crop.
  """
  # As in torchvision, halves are rounded to the even number.
  return round((resize - crop) / 2.0)


@overload
def normalise(images: np.ndarray) -> np.ndarray: ...
@overload
def normalise(images: jax.Array) -> jax.Array: ...
def normalise(images: np.ndarray | jax.Array) -> np.ndarray | jax.Array:
  """Normalises images by ImageNet's mean and standard deviation.

  Computes (images / 255 - mean) / std. For a numpy array the result equals
  that of torchvision's ToTensor and Normalize to the last bit. For a JAX array
  it is within 1e-6 of that, because XLA multiplies by reciprocals.

  Args:
    images: A numpy or JAX array, (..., 3) uint8.

  Returns:
    The normalised images, (..., 3) float32, an array of the same kind.
  """
  return (
    images.astype(np.float32) / np.float32(255) - IMAGENET_MEAN
  ) / IMAGENET_STD
