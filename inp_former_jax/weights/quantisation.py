"""Quantises weights to 8-bit integers with scales, to ship a small encoder.

A matrix `w` becomes two arrays, `w` int8 and `w.int8_scale` float32, with
w = int8 * scale and one scale per output channel; vectors stay float32.
`files.read_arrays` dequantises what it reads.
"""

from collections.abc import Mapping

import numpy as np

SCALE_SUFFIX = ".int8_scale"


def quantise(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Rounds matrices to 8 bits, symmetrically and per output channel.

  Args:
    arrays: Float arrays by name, with the names and shapes of
      facebookresearch/dinov2: the output channels are the first axis, or the
      last one where the first has size 1 (tables of tokens).

  Returns:
    The arrays by name. The scales of a matrix follow it.
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
  """Multiplies integers by their scales; leaves all other arrays unchanged.

  Args:
    arrays: Arrays by name, as `quantise` returns them.

  Returns:
    The arrays by name, float32 where they were quantised.

  Raises:
    ValueError: If scales have no integers, or their shapes do not fit.
  """
  result = {n: v for n, v in arrays.items() if not n.endswith(SCALE_SUFFIX)}
  for name, scale in arrays.items():
    if not name.endswith(SCALE_SUFFIX):
      continue
    whole = name.removesuffix(SCALE_SUFFIX)
    if whole not in result or result[whole].dtype != np.int8:
      raise ValueError(f"it holds {name}, but {whole} is not an int8 array")
    try:
      result[whole] = result[whole].astype(np.float32) * scale
    except ValueError as error:
      raise ValueError(f"{name} does not fit {whole} ({error})") from error
  return result
