"""Images that are already in memory, made what image files are decoded to."""

import numpy as np
from PIL import Image

from inp_former_jax.data.transforms import to_8_bit

_EXPECTED = (
  "expected a Pillow image, or an array (height, width, 3) or (height, width) "
  "of uint8 in [0, 255], or (height, width) of uint16"
)


def from_array(image: np.ndarray | Image.Image) -> Image.Image:
  """Converts an image in memory to what `transforms.decode` makes of its file.

  Args:
    image: A Pillow image of any mode that `to_8_bit` accepts; or an array of
      colours, (H, W, 3) uint8 in the order red, green, blue, or (H, W, 4) with
      an alpha channel, which is dropped; or of grey, (H, W) or (H, W, 1) uint8,
      or (H, W) uint16, of which the high byte is kept, as of 16-bit files.

  Returns:
    The image in Pillow's mode "RGB".

  Raises:
    ValueError: If the array has another shape or dtype or no pixels, or the
      range of the Pillow image's values is not known.
  """
  if isinstance(image, Image.Image):
    try:
      return to_8_bit(image, "RGB")
    except ValueError as error:
      raise ValueError(f"`images` holds a Pillow image: {error}.") from error
  if not isinstance(image, np.ndarray):
    raise ValueError(
      f"`images` holds a {type(image).__name__}; {_EXPECTED}. Convert it by "
      "np.asarray."
    )
  _require_pixels(image)
  if image.dtype == np.uint16:
    image = (image >> 8).astype(np.uint8)
  if image.ndim == 3:
    image = image[..., 0] if image.shape[2] == 1 else image[..., :3]
  return Image.fromarray(np.ascontiguousarray(image)).convert("RGB")


def _require_pixels(image: np.ndarray) -> None:
  """Checks the shape and the dtype of an array."""
  deep = image.dtype == np.uint16
  grey = image.ndim == 2
  coloured = image.ndim == 3 and image.shape[2] in (1, 3, 4) and not deep
  if image.size and (deep or image.dtype == np.uint8) and (grey or coloured):
    return
  if not image.size:
    remedy = "It has no pixels; leave it out."
  elif image.dtype.kind == "f":
    remedy = (
      "Undo any normalisation, and convert values in [0, 1] by "
      "(255 * image).round().astype(np.uint8)."
    )
  elif image.dtype == bool:
    remedy = "Convert it by 255 * image.astype(np.uint8)."
  elif image.ndim == 3 and image.shape[0] in (1, 3, 4):
    remedy = "Put the channels last, by image.transpose(1, 2, 0)."
  elif image.ndim == 3 and image.dtype == np.uint8:
    remedy = "Give grey images one by one, or with a last axis of one channel."
  elif image.ndim == 4:
    remedy = "Give the images of a batch one by one."
  else:
    remedy = "Convert it to 8 bits per channel."
  raise ValueError(
    f"`images` holds an array {image.shape} of {image.dtype}; {_EXPECTED}. "
    f"{remedy}"
  )
