"""Anomaly map and image score: a small linear operator, then a mean.

The original upsamples the distance map to the crop (bilinear, corners
aligned), resizes it to the evaluation size (bilinear, half-pixel centres, no
antialias) and smooths it (5x5 Gaussian of sigma 4, zero padding). All of this
is linear and separable, hence map = A_rows @ distance @ A_columns.T with
A = Gaussian @ resize @ upsample, which is computed once.
"""

import functools
import operator
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from inp_former_jax.models import placement
from inp_former_jax.models.similarity import cosine_similarity

EVALUATION_SIZE = 256
TOP_FRACTION = 0.01
GAUSSIAN_SIZE = 5
GAUSSIAN_SIGMA = 4.0


@functools.cache
def bilinear_matrix(
  size_in: int, size_out: int, *, align_corners: bool
) -> np.ndarray:
  """Returns the matrix that resizes an axis as PyTorch's interpolate does.

  Args:
    size_in: Number of samples before resizing.
    size_out: Number of samples after resizing.
    align_corners: True aligns the first and the last samples. False samples at
      half-pixel centres, clamped at the border, without antialias.

  Returns:
    The bilinear weights, (size_out, size_in) float64, with rows that sum to 1.
  """
  index = np.arange(size_out)
  if align_corners:
    source = index * ((size_in - 1) / max(size_out - 1, 1))
  else:
    source = np.maximum((index + 0.5) * (size_in / size_out) - 0.5, 0.0)
  low = np.minimum(source.astype(int), size_in - 1)
  fraction = source - low
  matrix = np.zeros((size_out, size_in))
  np.add.at(matrix, (index, low), 1.0 - fraction)
  np.add.at(matrix, (index, np.minimum(low + 1, size_in - 1)), fraction)
  return matrix


def gaussian_matrix(size: int) -> np.ndarray:
  """Returns the matrix that smooths an axis by a Gaussian, with zero padding.

  Args:
    size: Number of samples along the axis.

  Returns:
    The weights, (size, size) float64.
  """
  offsets = np.arange(GAUSSIAN_SIZE) - GAUSSIAN_SIZE // 2
  kernel = np.exp(-(offsets**2) / (2 * GAUSSIAN_SIGMA**2))
  kernel /= kernel.sum()
  return functools.reduce(
    operator.add,
    (k * np.eye(size, k=int(o)) for k, o in zip(kernel, offsets, strict=True)),
  )


@functools.cache
def scoring_matrix(patches: int, crop: int, size: int) -> np.ndarray:
  """Returns the matrix A that upsamples, resizes and smooths an axis.

  Args:
    patches: Number of patches along the axis.
    crop: Number of pixels of the model's input along the axis.
    size: Number of pixels of the anomaly map along the axis.

  Returns:
    The matrix A, (size, patches) float32.
  """
  upsample = bilinear_matrix(patches, crop, align_corners=True)
  resize = bilinear_matrix(crop, size, align_corners=False)
  return (gaussian_matrix(size) @ resize @ upsample).astype(np.float32)


def group_distance(
  encoder_groups: Sequence[jax.Array], decoder_groups: Sequence[jax.Array]
) -> jax.Array:
  """Computes the distance of every patch, the groups' mean of 1 - cos(g, h).

  The original averages the groups' maps after the upsampling, which gives the
  same result because the map is linear in the distance.

  Args:
    encoder_groups: The encoder groups g, each (B, N, C) float32.
    decoder_groups: The decoder groups h, of the same shapes.

  Returns:
    The distances, (B, N), in [0, 2].
  """
  distances = [
    1.0 - cosine_similarity(g, h)
    for g, h in zip(encoder_groups, decoder_groups, strict=True)
  ]
  return functools.reduce(operator.add, distances) / len(distances)


def anomaly_map(
  distance: jax.Array,
  grid: tuple[int, int],
  crop: tuple[int, int],
  size: int = EVALUATION_SIZE,
) -> jax.Array:
  """Computes smoothed anomaly maps at evaluation size.

  Args:
    distance: Distance of every patch, (B, N): `group_distance`, or the INP
      distance for zero-shot.
    grid: Numbers of rows and columns of patches, with rows * columns = N.
    crop: Height and width of the model's input in pixels.
    size: Side of the map in pixels.

  Returns:
    The anomaly maps, (B, size, size) float32, in [0, 2].
  """
  rows = scoring_matrix(grid[0], crop[0], size)
  columns = scoring_matrix(grid[1], crop[1], size)
  return _separable(rows, distance.reshape(-1, *grid), columns)


def full_anomaly_map(
  distance: jax.Array, grid: tuple[int, int], crop: tuple[int, int]
) -> jax.Array:
  """Computes anomaly maps at the crop's size, before resizing and smoothing.

  Args:
    distance: Distance of every patch, (B, N).
    grid: Numbers of rows and columns of patches, with rows * columns = N.
    crop: Height and width of the model's input in pixels.

  Returns:
    The maps, (B, height, width) float32, in [0, 2].
  """
  rows = bilinear_matrix(grid[0], crop[0], align_corners=True)
  columns = bilinear_matrix(grid[1], crop[1], align_corners=True)
  return _separable(rows, distance.reshape(-1, *grid), columns)


def _separable(rows, distance: jax.Array, columns) -> jax.Array:
  # Always float32, because the operator is small and scores can lie close
  # together.
  return jnp.einsum(
    "si,bij,tj->bst",
    rows.astype(np.float32),
    distance.astype(jnp.float32),
    columns.astype(np.float32),
    precision=jax.lax.Precision.HIGHEST,
  )


def image_score(
  maps: jax.Array, top_fraction: float = TOP_FRACTION
) -> jax.Array:
  """Computes image scores, the means of the highest values of each map.

  Args:
    maps: Anomaly maps, (B, H, W).
    top_fraction: Share of the pixels that are averaged: int(fraction * H * W),
      by default 655 of 256 x 256, but at least one.

  Returns:
    The image scores, (B,).
  """
  flat = maps.reshape(maps.shape[0], -1)
  count = max(1, int(top_fraction * flat.shape[1]))
  # On its own, XLA would gather the maps of all devices on each of them.
  highest = placement.per_device(lambda x: jax.lax.top_k(x, count)[0], flat)
  return jnp.mean(highest, axis=-1)


def score_of_map(anomaly_map: np.ndarray, top_fraction: float) -> float:
  """Computes the image score from a map with pixels that do not count.

  Args:
    anomaly_map: The anomaly map, (H, W) float32, NaN where pixels do not count;
      at least one of them does.
    top_fraction: Share of the pixels that count whose mean is the score.

  Returns:
    The mean of the highest values, as `image_score` computes it.
  """
  values = anomaly_map[~np.isnan(anomaly_map)]
  count = max(1, int(top_fraction * values.size))
  top = np.partition(values, values.size - count)[-count:]
  return float(top.mean(dtype=np.float64))
