"""Exchanges arrays between the processes of a run, by their devices.

With one process, nothing is sent. All processes must call these functions, in
the same order.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

SUM_PIECE = 2**18  # numbers that are summed over processes at once
_SHIFTS = (0, 16, 32, 48)  # of the words of an int64


def sum_over_processes(array: np.ndarray) -> np.ndarray:
  """Returns the sum over all processes of an equally shaped host array.

  The devices sum it, SUM_PIECE numbers after another, so that no process ever
  holds what the others sent. A piece takes 2 MiB on the way and 4 MiB as a sum,
  spread over the process's devices, however many processes there are.

  Args:
    array: This process's array, int64 or float32. The sum of int64 is exact.
      That of float32 is rounded like any, except where all processes but one
      have 0.

  Returns:
    A new array of the same shape and dtype, equal on all processes.

  Raises:
    TypeError: If the dtype is another one.
  """
  if array.dtype not in (np.int64, np.float32):
    raise TypeError(f"`array` is {array.dtype}; expected int64 or float32.")
  if jax.process_count() == 1:
    return array.copy()
  mesh = _mesh_of_processes()
  shape = mesh.devices.shape

  def exchange(words: np.ndarray) -> np.ndarray:
    rows = jax.make_array_from_process_local_data(
      NamedSharding(mesh, _ROWS), words[None], (shape[0], *words.shape)
    )
    columns = {
      s.index[1].start or 0: np.asarray(s.data)
      for s in _row_sum(mesh)(rows).addressable_shards
    }
    return np.concatenate([columns[i] for i in sorted(columns)], axis=1)

  return _sum_in_pieces(array, exchange, shape[1])


def _mesh_of_processes() -> Mesh:
  """Returns a mesh of a row for every process, of all its devices."""
  devices = sorted(jax.devices(), key=lambda d: (d.process_index, d.id))
  rows = np.array(devices).reshape(jax.process_count(), -1)
  return Mesh(rows, ("processes", "devices"))


# Words of all processes, (processes, words of a number, numbers): each process
# has a row, whose columns are shared out among its devices.
_ROWS = P("processes", None, "devices")


@functools.lru_cache(maxsize=2)
def _row_sum(mesh: Mesh):
  """Returns the jitted sum of rows, which every process gets."""

  def total(rows: jax.Array) -> jax.Array:
    exact = rows.dtype == jnp.uint16
    return rows.sum(axis=0, dtype=jnp.uint32 if exact else rows.dtype)

  split = NamedSharding(mesh, P(None, "devices"))
  return jax.jit(total, out_shardings=split)


def _sum_in_pieces(
  array: np.ndarray,
  exchange: Callable[[np.ndarray], np.ndarray],
  divisor: int,
) -> np.ndarray:
  """Sums an array piece by piece.

  Args:
    array: This process's array, int64 or float32.
    exchange: Sums the words of a piece, (w, n), over all processes.
    divisor: What the number n of columns must be a multiple of.
  """
  flat = array.reshape(-1)
  total = np.empty_like(flat)
  # Pieces of one size, so that the sum is compiled once.
  size = -(-min(SUM_PIECE, flat.size) // divisor) * divisor
  for start in range(0, flat.size, SUM_PIECE):
    part = flat[start : start + SUM_PIECE]
    padded = np.zeros(size, flat.dtype)
    padded[: part.size] = part
    summed = _from_words(exchange(_to_words(padded)), flat.dtype)
    total[start : start + part.size] = summed[: part.size]
  return total.reshape(array.shape)


def _to_words(array: np.ndarray) -> np.ndarray:
  """Splits numbers (n,) into words (w, n) that devices can sum.

  JAX without x64 has no 64-bit integers, and float32 counts to 2**24 only. So
  an int64 becomes four words of 16 bits, whose sums over up to 2**16 processes
  fit into 32 bits.
  """
  if array.dtype == np.float32:
    return array[None]
  bits = array.view(np.uint64)
  return np.stack([(bits >> np.uint64(k)).astype(np.uint16) for k in _SHIFTS])


def _from_words(words: np.ndarray, dtype: np.dtype) -> np.ndarray:
  """Joins sums of words (w, n) into the sums of the numbers, (n,)."""
  if dtype == np.float32:
    return words[0]
  bits = np.zeros(words.shape[1], np.uint64)
  for word, k in zip(words, _SHIFTS, strict=True):
    bits += word.astype(np.uint64) << np.uint64(k)  # modulo 2**64, as int64
  return bits.view(np.int64)


def gather_processes(array: np.ndarray) -> np.ndarray:
  """Stacks the equally shaped host arrays of all processes on a new axis.

  Every process gets what all others have: use it for little, and
  `sum_over_processes` where the sum is enough.
  """
  if jax.process_count() == 1:
    return array[None]
  # Sent as bytes, because 64-bit numbers would be cut to 32 bits on the way.
  gathered = multihost_utils.process_allgather(
    np.frombuffer(np.ascontiguousarray(array).tobytes(), np.uint8)
  )
  return np.stack(
    [
      np.frombuffer(g.tobytes(), array.dtype).reshape(array.shape)
      for g in np.asarray(gathered)
    ]
  )


def from_first_process(text: str) -> str:
  """Returns the first process's text on all processes, which must all ask."""
  if jax.process_count() == 1:
    return text
  content = np.frombuffer(text.encode(), np.uint8)
  size = gather_processes(np.array([len(content)]))[0, 0]
  padded = np.zeros(size, np.uint8)
  if jax.process_index() == 0:
    padded[:] = content
  return gather_processes(padded)[0].tobytes().decode()
