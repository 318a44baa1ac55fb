"""Turns image files into uint8 arrays, and those into normalised images.

Decoding, resizing and cropping are done by Pillow on the host, exactly as
torchvision does them for the original. EXIF orientation is ignored, as in the
original, because the masks of public data sets are drawn on the stored pixels.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Iterator, Sequence
from typing import cast, overload

import jax
import numpy as np
from PIL import Image, ImageChops

from inp_former_jax.data.errors import DataError
from inp_former_jax.data.image_files import ImageSource, open_image_file
from inp_former_jax.data.records import BRIGHT, NON_ZERO

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
    # As in torchvision, halves are rounded to the even number.
    top, left = (int(round((r - c) / 2.0)) for _, r, c in self._axes())
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
  image = decode(path, "RGB")
  return np.asarray(resize_and_crop(image, preprocessing))


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
  masks = [_read_mask(path, values, image_path) for path in paths]
  mask = functools.reduce(ImageChops.lighter, masks)
  return binary_mask(
    np.asarray(resize_and_crop(mask, preprocessing)), evaluation_size
  )


def _read_mask(
  path: ImageSource, values: str, image_path: ImageSource | None
) -> Image.Image:
  """Reads a mask as 8-bit grey; NON_ZERO maps all values but 0 to 255."""
  if values == NON_ZERO:
    mask = _non_zero(path)
  else:
    mask = decode(path, "L")
  if image_path is not None:
    with _readable(image_path), open_image_file(image_path) as image:
      size = image.size
    if mask.size != size:
      raise DataError(
        f"The mask {path} is {mask.width}x{mask.height} pixels, its image "
        f"{image_path} is {size[0]}x{size[1]} (width x height); expected the "
        "same size. Draw the mask on the image as it is stored."
      )
  largest = brightest(mask)
  if 0 < largest < 128:
    raise DataError(
      f"The mask {path} has no pixel brighter than {largest} of 255; "
      "expected 0 for normal and 255 for defective pixels. If it holds class "
      "numbers, write 255 where they are not 0."
    )
  return mask


def brightest(grey: Image.Image) -> int:
  """Returns the largest value, in [0, 255], of an image of mode "L"."""
  # Pillow's return type also covers floats and images of several bands.
  return cast(tuple[int, int], grey.getextrema())[1]


def _non_zero(path: ImageSource) -> Image.Image:
  """Returns 255 where the stored value or palette index is not 0, else 0."""
  with _readable(path), open_image_file(path) as image:
    stored = np.asarray(image)
  if stored.ndim == 3:
    stored = stored[..., :3].any(axis=-1)
  return Image.fromarray(np.where(stored != 0, 255, 0).astype(np.uint8))


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
  with _readable(path), open_image_file(path) as image:
    image.load()
    return to_8_bit(image, mode)


@contextlib.contextmanager
def _readable(path: ImageSource) -> Iterator[None]:
  try:
    yield
  except DataError:
    raise  # The data set that holds the image cannot be read.
  # Pillow's plugins raise errors of many types for a damaged file.
  except Exception as error:
    reason = str(error) or type(error).__name__
    raise DataError(
      f"{path} cannot be read as an image: {reason}. Replace the file, or "
      "remove it from the data set."
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
