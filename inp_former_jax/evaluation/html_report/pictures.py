"""Pictures within the page: JPEG strips of bounded size."""

import base64
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

GAP = 4  # pixels between the pictures of a strip
BETWEEN = (128, 128, 128)  # visible in light and in dark
QUALITIES = (85, 75, 60, 45, 30)
_BYTES_PER_PIXEL = 0.3  # of a JPEG of a photograph, about
MIN_SIDE, MAX_SIDE = 48, 220


def side_for(max_bytes: int, pictures: int) -> int:
  """Returns how high a strip can be so that its JPEG has about that size.

  Args:
    max_bytes: Largest size of the file.
    pictures: Number of pictures, about square, in the strip.
  """
  side = (max_bytes / pictures / _BYTES_PER_PIXEL) ** 0.5
  return int(np.clip(side, MIN_SIDE, MAX_SIDE))


def strip(pictures: Sequence[np.ndarray | None], side: int) -> Image.Image:
  """Puts pictures of equal shapes side by side.

  Args:
    pictures: The pictures, each (H, W, 3) uint8 or (H, W) bool; None for one
      that is not known. The first is known.
    side: Height of the strip in pixels.
  """
  first = pictures[0]
  assert first is not None
  width = max(1, round(side * first.shape[1] / first.shape[0]))
  size = (len(pictures) * (width + GAP) - GAP, side)
  canvas = Image.new("RGB", size, BETWEEN)
  for column, picture in enumerate(pictures):
    cell = _cell(picture, (width, side))
    canvas.paste(cell, (column * (width + GAP), 0))
  return canvas


def _cell(picture: np.ndarray | None, size: tuple[int, int]) -> Image.Image:
  if picture is None:
    cell = Image.new("RGB", size, (176, 176, 176))
    middle = (size[0] / 2, size[1] / 2)
    ImageDraw.Draw(cell).text(middle, "no mask", fill=(60, 60, 60), anchor="mm")
    return cell
  if picture.dtype == bool:
    picture = np.repeat(picture[..., None] * np.uint8(255), 3, axis=-1)
  image = Image.fromarray(picture)
  return image.resize(size, Image.Resampling.LANCZOS)


def data_address(image: Image.Image, max_bytes: int) -> str:
  """Encodes a picture as a JPEG in a data address.

  Args:
    image: The picture.
    max_bytes: Largest size of the JPEG. To keep to it, the quality is lowered,
      and then the size is halved.

  Returns:
    The address, "data:image/jpeg;base64,...".
  """
  while True:
    for quality in QUALITIES:
      file = io.BytesIO()
      image.save(file, "JPEG", quality=quality, optimize=True)
      if file.tell() <= max_bytes or max(image.size) <= 32:
        code = base64.b64encode(file.getvalue()).decode("ascii")
        return f"data:image/jpeg;base64,{code}"
    image = image.resize([max(1, s // 2) for s in image.size])
