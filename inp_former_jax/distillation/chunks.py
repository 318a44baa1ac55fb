"""Functions of modules over many images: compiled, some images at a time."""

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
  """function(*modules, *arrays), computed in parts of the first axis.

  Args:
    function: A named function: it is compiled once for modules of the same
      structure.
    modules: nnx modules or arrays.
    *arrays: (B, ...).

  Returns:
    (B, ...), on the host.
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
  """The sums of what a function gives for parts of the first axis.

  Args:
    function: As above, but called with `static` first; gives a tuple.
    modules: As above.
    *arrays: (B, ...).
    static: Hashable arguments.
    size: Images at a time.

  Returns:
    float64 arrays.
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
