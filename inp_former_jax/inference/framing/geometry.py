"""From the model's anomaly map back to the pixels of the image.

The model sees the centre crop of the resized image, and its map covers this
crop, whatever the size of the map.
"""

import functools
import math

import numpy as np

from inp_former_jax.data.transforms import Preprocessing, crop_start


def map_at_image_size(
  anomaly_map: np.ndarray, size: tuple[int, int], preprocessing: Preprocessing
) -> np.ndarray:
  """Resizes an anomaly map bilinearly to the image that it belongs to.

  Args:
    anomaly_map: The model's map, (S, S) float32, which covers the crop.
    size: Height and width of the image in pixels, as it is stored.
    preprocessing: The sizes to which the image was resized and cropped.

  Returns:
    The map, (height, width) float32; NaN for pixels whose centre lies outside
    of the crop, which the model has not seen.
  """
  rows, columns = (
    _axis_matrix(*axis, samples)
    for axis, samples in zip(
      _axes(size, preprocessing), anomaly_map.shape, strict=True
    )
  )
  return rows @ anomaly_map.astype(np.float32) @ columns.T


def field_of_view(
  size: tuple[int, int], preprocessing: Preprocessing
) -> tuple[float, float, float, float]:
  """Returns the part of an image that the crop shows.

  Args:
    size: Height and width of the image in pixels.
    preprocessing: The sizes to which the image is resized and cropped.

  Returns:
    Left, upper, right and lower edge, in pixels of the image.
  """
  (upper, lower), (left, right) = (
    (
      crop_start(resize, crop) * side / resize,
      (crop_start(resize, crop) + crop) * side / resize,
    )
    for side, resize, crop in _axes(size, preprocessing)
  )
  return left, upper, right, lower


def uninspected_share(preprocessing: Preprocessing) -> float:
  """Returns the share of an image's area that the centre crop leaves out."""
  (height, width), (rows, columns) = preprocessing.resize, preprocessing.crop
  return 1 - rows * columns / (height * width)


def with_aspect_of(
  size: tuple[int, int], preprocessing: Preprocessing, patch_size: int
) -> Preprocessing:
  """Returns sizes of the same area that keep the aspect ratio of an image.

  Args:
    size: Height and width of the image in pixels.
    preprocessing: The sizes that the model was trained with.
    patch_size: Side of the encoder's patches in pixels.

  Returns:
    The sizes; the crop's sides are rounded to whole patches, and the crop is
    the same share of each side as before.
  """
  scale = math.sqrt(math.prod(preprocessing.crop) / math.prod(size))
  (height, rows), (width, columns) = (
    _scaled(*axis, scale, patch_size) for axis in _axes(size, preprocessing)
  )
  return Preprocessing(resize=(height, width), crop=(rows, columns))


def _scaled(
  side: int, resize: int, crop: int, scale: float, patch_size: int
) -> tuple[int, int]:
  """Returns the sides of resized image and crop along an axis."""
  new_crop = max(1, round(side * scale / patch_size)) * patch_size
  return round(new_crop * resize / crop), new_crop


def _axes(size: tuple[int, int], preprocessing: Preprocessing):
  return zip(size, preprocessing.resize, preprocessing.crop, strict=True)


# A matrix of 20,000 x 256 takes 20 MB.
@functools.lru_cache(maxsize=8)
def _axis_matrix(size: int, resize: int, crop: int, samples: int) -> np.ndarray:
  """Returns the weights of the map's samples in an axis of the image.

  Args:
    size: Number of pixels of the image along the axis.
    resize: Number of pixels to which it is resized.
    crop: Number of pixels of the crop.
    samples: Number of samples of the map, which cover the crop.

  Returns:
    The weights, (size, samples) float32, with rows of NaN outside of the crop.
  """
  centre = (np.arange(size) + 0.5) * (resize / size) - crop_start(resize, crop)
  source = np.clip(centre * (samples / crop) - 0.5, 0, samples - 1)
  low = np.minimum(source.astype(int), max(samples - 2, 0))
  fraction = source - low
  matrix = np.zeros((size, samples), np.float32)
  index = np.arange(size)
  matrix[index, low] = 1 - fraction
  matrix[index, np.minimum(low + 1, samples - 1)] += fraction
  matrix[(centre < 0) | (centre > crop)] = np.nan
  return matrix
