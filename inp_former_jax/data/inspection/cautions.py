"""Says what training makes of sound images: rotated, squashed or cropped ones.

None of this is a problem of the data set. Arguments are named in backticks; the
command replaces them by flags.
"""

import collections
import math

from inp_former_jax.data.image_files import EXTENSIONS
from inp_former_jax.data.inspection.findings import Inspection, Size, size_text
from inp_former_jax.data.transforms import Preprocessing

SQUASHED = 1.5  # times as wide or as high as the shape that is resized to
PAPER = Preprocessing(resize=(448, 448), crop=(392, 392))
_PATCH = 14  # pixels; sides of the crop are multiples of it
_SHOWN = 3  # files or sizes


def find_cautions(
  inspection: Inspection, preprocessing: Preprocessing
) -> list[str]:
  """Says what becomes of the images when they are resized and cropped.

  Args:
    inspection: Findings of the inspection of the data set.
    preprocessing: The sizes that the images are resized and cropped to.

  Returns:
    A paragraph each on skipped files, on images with an EXIF orientation and on
    squashed images, if there are any, and on the part of all images that is
    never inspected.
  """
  sizes = sum(inspection.sizes.values(), collections.Counter())
  paragraphs = (
    _skipped(inspection.skipped),
    _rotated(inspection.rotated, sizes.total()),
    _squashed(sizes, preprocessing),
    _cropped(preprocessing),
  )
  return [paragraph for paragraph in paragraphs if paragraph]


def _skipped(names: tuple[str, ...]) -> str:
  if not names:
    return ""
  return (
    f"Warning: {len(names):,} image files are skipped because of their ending, "
    f"e.g. {', '.join(names[:_SHOWN])}. Only files ending in "
    f"{', '.join(EXTENSIONS)} are read; convert the others."
  )


def _rotated(names: tuple[str, ...], total: int) -> str:
  if not names:
    return ""
  return (
    f"Warning: {len(names):,} of {total:,} images with an EXIF orientation, "
    f"e.g. {', '.join(names[:_SHOWN])}. Viewers rotate or mirror such images; "
    "here the orientation is ignored, as in the original implementation: "
    "images are read as they are stored, and masks must fit the stored pixels. "
    "Rotate the stored pixels before you draw masks, e.g. with ImageMagick: "
    "mogrify -auto-orient FILE."
  )


def _squashed(
  sizes: collections.Counter[Size], preprocessing: Preprocessing
) -> str:
  squashed = _far_from(preprocessing, sizes)
  if not squashed:
    return ""
  shown = [
    f"{number:,} of {size_text(size)} ({_ratio(size)})"
    for size, number in squashed.most_common(_SHOWN)
  ]
  if len(squashed) > _SHOWN:
    shown.append(f"others of {len(squashed) - _SHOWN:,} more sizes")
  height, width = preprocessing.resize
  target = width, height
  ((commonest, _),) = squashed.most_common(1)
  better = sizes_for(commonest, preprocessing)
  suits_all = not _far_from(better, sizes)
  return (
    f"Warning: {squashed.total():,} of {sizes.total():,} images squashed by "
    f"resizing to {size_text(target)} ({_ratio(target)}), because their shape "
    f"is more than {SQUASHED:g} times as wide or as high: "
    f"{', '.join(shown)}. To keep the shape of {size_text(commonest)}, train "
    f"{'' if suits_all else 'on such images separately, '}with "
    f"`resize`={better.resize[0]} `resize_width`={better.resize[1]} "
    f"`crop`={better.crop[0]} `crop_width`={better.crop[1]} (about as many "
    "pixels)."
  )


def _far_from(
  preprocessing: Preprocessing, sizes: collections.Counter[Size]
) -> collections.Counter[Size]:
  """Returns the sizes that resizing squashes, with the number of images."""
  height, width = preprocessing.resize
  far = collections.Counter()
  for size, number in sizes.items():
    stretch = _aspect(size) / _aspect((width, height))
    if max(stretch, 1 / stretch) > SQUASHED:
      far[size] = number
  return far


def sizes_for(size: Size, preprocessing: Preprocessing) -> Preprocessing:
  """Computes sizes that keep the shape of an image.

  Args:
    size: Width and height of the image in pixels.
    preprocessing: The sizes in use.

  Returns:
    Sizes with about the same number of pixels in the crop, whose sides are
    multiples of 14, and the same share of the resized image in it.
  """
  area = math.prod(preprocessing.crop)
  aspect = _aspect(size)
  sides = math.sqrt(area / aspect), math.sqrt(area * aspect)
  height, width = (max(round(side / _PATCH), 1) * _PATCH for side in sides)
  scale = math.sqrt(math.prod(preprocessing.resize) / area)
  return Preprocessing(
    resize=(round(height * scale), round(width * scale)), crop=(height, width)
  )


def _cropped(preprocessing: Preprocessing) -> str:
  resize, crop = _sides(preprocessing.resize), _sides(preprocessing.crop)
  sizes = f"Resize {resize}, centre crop {crop}"
  inspected = math.prod(preprocessing.crop) / math.prod(preprocessing.resize)
  if inspected == 1:
    return f"{sizes}: the whole of every image is inspected."
  paper = " (as in the paper)" if preprocessing == PAPER else ""
  height, width = preprocessing.crop
  flags = f"`resize`={height} `crop`={height}"
  if height != width:
    flags += f" `resize_width`={width} `crop_width`={width}"
  return (
    f"{sizes}{paper}: the outer {_percent(1 - inspected)} of every image is "
    f"never inspected, {_borders(preprocessing)}. To inspect everything, train "
    f"with a resize equal to the crop: {flags}."
  )


def _borders(preprocessing: Preprocessing) -> str:
  """Says which share of an image is cut off at each of its sides."""
  top, left = (
    (resize - crop) / (2 * resize)
    for resize, crop in zip(
      preprocessing.resize, preprocessing.crop, strict=True
    )
  )
  if math.isclose(top, left):
    return f"{_one_in(top)} of it on each side"
  borders = (
    (top, "of its height at the top and at the bottom"),
    (left, "of its width on the left and on the right"),
  )
  return " and ".join(f"{_one_in(x)} {where}" for x, where in borders if x)


def _one_in(share: float) -> str:
  return f"1/{round(1 / share, 1):g}"


def _percent(share: float) -> str:
  return f"{100 * share:.0f} %" if share >= 0.01 else "1 % or less"


def _sides(sides: tuple[int, int]) -> str:
  """Formats (height, width): one number if they are equal."""
  height, width = sides
  return str(height) if height == width else size_text((width, height))


def _aspect(size: Size) -> float:
  return size[0] / size[1]


def _ratio(size: Size) -> str:
  """Formats the shape of an image, e.g. "3:1" or "1:1.5"."""
  aspect = _aspect(size)
  if aspect >= 1:
    return f"{round(aspect, 2):g}:1"
  return f"1:{round(1 / aspect, 2):g}"
