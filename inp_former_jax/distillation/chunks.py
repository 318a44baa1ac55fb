"""Runs compiled functions of modules over many images, a chunk at a time."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx

from inp_former_jax.models.vit import AnyArray

_SIZE = 16  # images computed at a time


def map_chunks(
  function: Callable, modules: Sequence[Any], *arrays: AnyArray
) -> np.ndarray:
  """Computes function(*modules, *arrays) in chunks of the first axis.

  Args:
    function: The function to compute. It should be a named one, which is
      compiled once for all modules of the same structure.
    modules: The nnx modules or arrays that every chunk gets whole.
    *arrays: The arrays to cut into chunks, (B, ...).

  Returns:
    The results of all chunks as one array on the host, (B, ...).
  """
  parts = _chunks(function, modules, arrays, (), _SIZE)
  return np.concatenate([np.asarray(part) for part in parts])


def sum_chunks(
  function: Callable,
  modules: Sequence[Any],
  *arrays: AnyArray,
  static: tuple = (),
  size: int = _SIZE,
) -> list[np.ndarray]:
  """Sums function(*static, *modules, *arrays) over chunks of the first axis.

  Args:
    function: The function to compute, which returns a tuple of arrays. It
      should be a named one, see `map_chunks`.
    modules: The nnx modules or arrays that every chunk gets whole.
    *arrays: The arrays to cut into chunks, (B, ...).
    static: Hashable arguments of the function, which come first.
    size: Number of images in a chunk.

  Returns:
    The sum of each array of the tuple over all chunks, float64.
  """
  sums: list[np.ndarray] = []
  for part in _chunks(function, modules, arrays, static, size):
    part = [np.asarray(x, np.float64) for x in part]
    sums = [a + b for a, b in zip(sums, part, strict=True)] if sums else part
  return sums


def _chunks(function, modules, arrays, static, size):
  graphdef, state = nnx.split(nnx.List(modules))
  for start in range(0, len(arrays[0]), size):
    chunk = [array[start : start + size] for array in arrays]
    yield _compiled(function, static, graphdef, state, *chunk)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _compiled(function, static, graphdef, state, *arrays):
  modules = nnx.merge(graphdef, state)
  return function(*static, *modules, *arrays)
