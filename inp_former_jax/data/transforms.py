"""Files -> uint8 arrays: decode, resize, crop; and what follows on them.

Everything up to the crop is Pillow on the host, exactly as torchvision does it
for the original. EXIF orientation is ignored, as the original does: the masks
of public data sets are drawn on the stored pixels.
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
  """How an image becomes the input of the encoder.

  Attributes:
    resize: (height, width) in pixels the image is resized to.
    crop: (height, width) in pixels of the centre crop of that.

  Raises:
    ValueError: If the crop is empty or larger than the resized image.
  """

  resize: tuple[int, int]
  crop: tuple[int, int]

  @classmethod
  def from_sides(
    cls, resize: int, crop: int, *, resize_width: int = 0, crop_width: int = 0
  ) -> "Preprocessing":
    """Sizes as a config gives them.

    Args:
      resize: Height in pixels after resizing.
      crop: Height in pixels of the centre crop.
      resize_width: Width in pixels after resizing; 0 is the height.
      crop_width: Width in pixels of the centre crop; 0 is its height.
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

  def require_patches(self, patch_size: int) -> "Preprocessing":
    """Makes sure that the crop can be cut into patches.

    Args:
      patch_size: Side of the encoder's patches in pixels.

    Returns:
      These sizes.

    Raises:
      ValueError: If a side of the crop is no multiple of the patch size.
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
    path: Image file of any mode; grey ones are repeated over the channels.
    preprocessing: Sizes.

  Returns:
    (Hc, Wc, 3) uint8, RGB.

  Raises:
    DataError: The file cannot be decoded.
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
  """Decodes, resizes and crops the mask of an image, for the evaluation.

  Args:
    paths: Mask files; a pixel is defective if one of them says so.
    preprocessing: Sizes, those of the image.
    evaluation_size: S, side of the result in pixels.
    values: Which pixels of a file are defective, see `Record.mask_values`.
    image_path: The image whose size the masks must have; not checked if None.

  Returns:
    (S, S) bool, True where defective.

  Raises:
    DataError: A file cannot be decoded, has another size than the image, or
      holds no pixel that is brighter than half although some are not 0.
  """
  masks = [_read_mask(path, values, image_path) for path in paths]
  mask = functools.reduce(ImageChops.lighter, masks)
  return binary_mask(
    np.asarray(resize_and_crop(mask, preprocessing)), evaluation_size
  )


def _read_mask(
  path: ImageSource, values: str, image_path: ImageSource | None
) -> Image.Image:
  """8-bit grey; of NON_ZERO values those but 0 become 255."""
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
  """The largest value of an image of mode "L", in [0, 255]."""
  # Pillow's type covers floats and several bands as well.
  return cast(tuple[int, int], grey.getextrema())[1]


def _non_zero(path: ImageSource) -> Image.Image:
  """255 where the stored value, or the number in a palette, is not 0."""
  with _readable(path), open_image_file(path) as image:
    stored = np.asarray(image)
  if stored.ndim == 3:
    stored = stored[..., :3].any(axis=-1)
  return Image.fromarray(np.where(stored != 0, 255, 0).astype(np.uint8))


def decode(path: ImageSource, mode: str) -> Image.Image:
  """Reads an image file.

  Args:
    path: Image file.
    mode: Pillow's name of the result's mode: "RGB", or "L" for 8-bit grey.

  Returns:
    The image in that mode, with 8 bits per channel.

  Raises:
    DataError: The file cannot be decoded.
  """
  with _readable(path), open_image_file(path) as image:
    image.load()
    return to_8_bit(image, mode)


@contextlib.contextmanager
def _readable(path: ImageSource) -> Iterator[None]:
  try:
    yield
  except DataError:
    raise  # not the image: the data set that holds it cannot be read
  # Pillow's plugins raise whatever they like for a damaged file.
  except Exception as error:
    reason = str(error) or type(error).__name__
    raise DataError(
      f"{path} cannot be read as an image: {reason}. Replace the file, or "
      "remove it from the data set."
    ) from error


def to_8_bit(image: Image.Image, mode: str) -> Image.Image:
  """Converts any of Pillow's modes to "RGB" or "L" of 8 bits per channel.

  16-bit grey keeps its high byte, as Pillow does it for 16-bit colour; the
  white of `convert` would begin at 255 of 65535. A range that a camera leaves
  unused is not stretched: images must stay comparable.

  Args:
    image: Of any mode.
    mode: "RGB" or "L".

  Returns:
    The image in that mode; transparency is dropped.

  Raises:
    ValueError: Its values have no known range.
  """
  if image.mode == "I" or image.mode.startswith("I;16"):
    values = np.asarray(image)
    if values.min() < 0 or values.max() > 65535:
      raise ValueError(
        f"its values reach from {values.min()} to {values.max()}, expected "
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
  """Resizes (bilinear, antialiased) and takes the centre crop.

  Args:
    image: Of mode "RGB" or "L".
    preprocessing: Sizes.

  Returns:
    The crop, of the same mode.
  """
  (height, width), (crop_height, crop_width) = (
    preprocessing.resize,
    preprocessing.crop,
  )
  image = image.resize((width, height), Image.Resampling.BILINEAR)
  # torchvision's rounding: halves go to the even number.
  top = int(round((height - crop_height) / 2.0))
  left = int(round((width - crop_width) / 2.0))
  return image.crop((left, top, left + crop_width, top + crop_height))


def binary_mask(mask: np.ndarray, size: int) -> np.ndarray:
  """Nearest neighbour to the evaluation's size, then the threshold.

  Args:
    mask: (Hc, Wc) uint8, as `resize_and_crop` leaves it.
    size: S in pixels.

  Returns:
    (S, S) bool, mask / 255 > 0.5 at pixel floor(i * Hc / S).
  """
  rows, columns = (np.arange(size) * side // size for side in mask.shape)
  return mask[np.ix_(rows, columns)] > 127


@overload
def normalise(images: np.ndarray) -> np.ndarray: ...
@overload
def normalise(images: jax.Array) -> jax.Array: ...
def normalise(images: np.ndarray | jax.Array) -> np.ndarray | jax.Array:
  """Divides by 255, takes ImageNet's mean, divides by its standard deviation.

  Of a numpy array it equals torchvision's ToTensor and Normalize to the last
  bit. Of a jax array it is within 1e-6 of that: XLA multiplies by reciprocals.

  Args:
    images: (..., 3) uint8, a numpy or a jax array.

  Returns:
    (..., 3) float32 of the same kind.
  """
  return (
    images.astype(np.float32) / np.float32(255) - IMAGENET_MEAN
  ) / IMAGENET_STD
