"""Weights as 8-bit integers with scales, to ship a small encoder.

A matrix `w` becomes two arrays, `w` int8 and `w.int8_scale` float32, with
w = int8 * scale and one scale per output channel; vectors stay float32.
`files.read_arrays` puts them together again.
"""

from collections.abc import Mapping

import numpy as np

SCALE_SUFFIX = ".int8_scale"


def quantise(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Rounds matrices to 8 bits, symmetrically, per output channel.

  Args:
    arrays: Name -> float array with the names and shapes of
      facebookresearch/dinov2: output channels are the first axis, or the last
      one where the first has size 1 (tables of tokens).

  Returns:
    Name -> array; a matrix is followed by its scales.
  """
  result = {}
  for name, value in arrays.items():
    if value.ndim < 2:
      result[name] = value.astype(np.float32)
      continue
    channel = value.ndim - 1 if value.shape[0] == 1 else 0
    others = tuple(axis for axis in range(value.ndim) if axis != channel)
    largest = np.abs(value).max(axis=others, keepdims=True)
    scale = np.maximum(largest / 127, np.finfo(np.float32).tiny)
    result[name] = np.round(value / scale).astype(np.int8)
    result[name + SCALE_SUFFIX] = scale.astype(np.float32)
  return result


def dequantise(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Puts integers and their scales together; the rest stays as it is.

  Args:
    arrays: As `quantise` gives them.

  Returns:
    Name -> array, float32 where it was quantised.

  Raises:
    ValueError: Scales without their integers, or of a shape that does not
      fit them.
  """
  result = {n: v for n, v in arrays.items() if not n.endswith(SCALE_SUFFIX)}
  for name, scale in arrays.items():
    if not name.endswith(SCALE_SUFFIX):
      continue
    whole = name.removesuffix(SCALE_SUFFIX)
    if whole not in result or result[whole].dtype != np.int8:
      raise ValueError(f"{name} is there, but {whole} is no int8 array")
    try:
      result[whole] = result[whole].astype(np.float32) * scale
    except ValueError as error:
      raise ValueError(f"{name} does not fit {whole} ({error})") from error
  return result
