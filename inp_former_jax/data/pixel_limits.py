"""How large an image may be, and how much is decoded at a time.

A file of half a megabyte can hold an image that takes gigabytes once it is
decoded. The size is in the header, so that it is known before.
"""

import contextlib
import os
import threading
from collections.abc import Generator

from PIL import Image

from inp_former_jax.data.errors import DataError

VARIABLE = "INP_FORMER_JAX_MAX_PIXELS"
# 16,000 x 8,000, a long line scan; decoded, it takes half a gigabyte.
MAX_PIXELS = 128_000_000


def max_pixels() -> int:
  """Returns the largest number of pixels of an image that is decoded.

  Returns:
    MAX_PIXELS, or the value of the environment variable
    INP_FORMER_JAX_MAX_PIXELS, with which Pillow's own limit is raised too.

  Raises:
    DataError: If the variable is set to something else than a number above 0.
  """
  text = os.environ.get(VARIABLE, "").replace("_", "")
  if not text:
    return MAX_PIXELS
  if not (text.isascii() and text.isdigit() and 0 < int(text[:20])):
    raise DataError(
      f"The environment variable {VARIABLE} is {ascii(text[:40])}; expected "
      f"a number of pixels above 0. Without it, the limit is {MAX_PIXELS}."
    )
  limit = int(text[:20])
  pillow = Image.MAX_IMAGE_PIXELS
  if pillow is not None and 2 * pillow < limit:
    Image.MAX_IMAGE_PIXELS = (limit + 1) // 2
  return limit


def too_large(name: str, pixels: str, limit: str) -> DataError:
  """Returns the error for an image that is not decoded because of its size.

  Args:
    name: The file, printable.
    pixels: The number of its pixels.
    limit: The largest number.
  """
  return DataError(
    f"{name} is not decoded: image size ({pixels} pixels) exceeds limit of "
    f"{limit} pixels. Cut the image into parts or make it smaller; or, if you "
    f"trust the file, raise the limit by the environment variable {VARIABLE}."
  )


class _Budget:
  """Lets threads decode at the same time as long as their images are small."""

  def __init__(self):
    self._changed = threading.Condition()
    self._used = 0

  @contextlib.contextmanager
  def of(self, pixels: int) -> Generator[None]:
    """Waits until so many pixels fit; one image always does."""
    with self._changed:
      self._changed.wait_for(
        lambda: not self._used or self._used + pixels <= MAX_PIXELS
      )
      self._used += pixels
    try:
      yield
    finally:
      with self._changed:
        self._used -= pixels
        self._changed.notify_all()


_BUDGET = _Budget()


def decoding(image: Image.Image) -> contextlib.AbstractContextManager[None]:
  """Waits until there is room for the pixels of an image.

  The images that a process decodes at a time have MAX_PIXELS together, or are
  a single one. A thread must not enter the context twice.

  Args:
    image: The image, which is not decoded yet.

  Returns:
    A context, in which the image is decoded and made smaller.
  """
  return _BUDGET.of(image.width * image.height)
