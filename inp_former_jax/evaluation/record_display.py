"""What figures and tables show of a record: name, image and ground truth."""

import functools
import pathlib
import unicodedata

import numpy as np
from matplotlib import font_manager, ft2font

from inp_former_jax.data import transforms
from inp_former_jax.data.image_files import ImageFile, StoredFile
from inp_former_jax.data.masks import load_mask
from inp_former_jax.data.records import Record
from inp_former_jax.data.transforms import Preprocessing


def whole_name(image: ImageFile) -> str:
  """Returns the path of an image file, in its folder or within a TFDS data set.

  Args:
    image: The image file of a record.
  """
  return image.path if isinstance(image, StoredFile) else str(image)


def short_name(image: ImageFile) -> str:
  """Returns the name of an image file and of its folder, "hole/000.png".

  Args:
    image: The image file of a record.

  Returns:
    The name, in which what cannot be shown as text is replaced: bytes that are
    no UTF-8, and control characters such as a newline.
  """
  name = "/".join(pathlib.PurePath(whole_name(image)).parts[-2:])
  return "".join("\ufffd" if _unprintable(c) else c for c in name)


def _unprintable(character: str) -> bool:
  return unicodedata.category(character) in ("Cc", "Cs")


def shortened(name: str, length: int) -> str:
  """Cuts a text in the middle, so that its start and its end are kept.

  Args:
    name: The text.
    length: Largest number of characters, an ellipsis included.
  """
  if len(name) <= length:
    return name
  end = (length - 1) * 2 // 3
  return f"{name[: length - 1 - end]}…{name[len(name) - end :]}"


def drawable(text: str) -> str:
  """Replaces the characters for which matplotlib's font has no picture.

  Args:
    text: The text to be drawn.
  """
  return "".join(
    c if _font().get_char_index(ord(c)) else "\ufffd" for c in text
  )


@functools.cache
def _font() -> ft2font.FT2Font:
  return font_manager.get_font(font_manager.findfont("DejaVu Sans"))


def load_image_and_mask(
  record: Record, preprocessing: Preprocessing, size: int
) -> tuple[np.ndarray, np.ndarray | None]:
  """Loads a record as the model and the metrics see it.

  Args:
    record: The record.
    preprocessing: Sizes of the images.
    size: Side of the masks that the metrics are computed from.

  Returns:
    The image, (H, W, 3) uint8, and its ground truth, (H, W) bool, all False for
    a normal image and None for a defective one without a mask.

  Raises:
    DataError: If a file cannot be read.
  """
  image = transforms.load_image(record.image, preprocessing)
  if record.masks:
    mask = load_mask(
      record.masks, preprocessing, size, values=record.mask_values
    )
    rows, columns = (np.arange(s) * size // s for s in preprocessing.crop)
    return image, mask[np.ix_(rows, columns)]
  return image, None if record.label else np.zeros(image.shape[:2], bool)
