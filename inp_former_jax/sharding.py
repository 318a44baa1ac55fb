"""The mesh, shardings of batches and parameters, and exchange between hosts.

A single device is the smallest mesh and is treated like any other.
"""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

AXES = ("data", "fsdp")
_FEWEST_VECTORS = 16  # of a leaf that is split over devices
SUM_PIECE = 2**18  # numbers that are summed over processes at once
_SHIFTS = (0, 16, 32, 48)  # of the words of an int64


def make_mesh(
  data: int = -1,
  fsdp: int = 1,
  *,
  devices: Sequence[jax.Device] | None = None,
) -> Mesh:
  """Makes a mesh over all devices of all processes.

  Args:
    data: The number of devices along the data axis; -1 means all devices that
      `fsdp` leaves.
    fsdp: The number of devices over which parameters and optimizer state are
      split; the batch is split over them too.
    devices: Other devices to use instead, which need not be there.

  Returns:
    A mesh with the axes `data` and `fsdp`.

  Raises:
    ValueError: If the product of both is not the number of devices.
  """
  count = jax.device_count() if devices is None else len(devices)
  if data == -1 and fsdp > 0 and count % fsdp == 0:
    data = count // fsdp
  if data < 1 or fsdp < 1 or data * fsdp != count:
    raise ValueError(
      f"`data` x `fsdp` is {data} x {fsdp} devices; there are {count}. Make "
      f"the product {count}, or set `data`=-1 and `fsdp` to a divisor of it."
    )
  return jax.make_mesh(
    (data, fsdp),
    AXES,
    axis_types=(jax.sharding.AxisType.Auto,) * 2,
    devices=devices,
  )


def single_device_mesh() -> Mesh:
  """Returns a mesh of the default device alone."""
  return _data_mesh(jax.local_devices()[:1])


def local_mesh(device: str | jax.Device | None = None) -> Mesh:
  """Makes a mesh over devices of this process, each with the whole model.

  Args:
    device: A device, or the kind of the devices to use, such as "cpu", "gpu" or
      "tpu"; None uses all of the default kind.

  Returns:
    A mesh whose devices share the images of a batch.

  Raises:
    ValueError: If there is no device of this kind.
  """
  if isinstance(device, jax.Device):
    return _data_mesh([device])
  try:
    return _data_mesh(jax.local_devices(backend=device))
  except RuntimeError as error:
    kinds = ", ".join(sorted({d.platform for d in jax.local_devices()}))
    raise ValueError(
      f"`device` is {device!r}, and there is no such device; JAX found {kinds}."
    ) from error


def _data_mesh(devices: Sequence[jax.Device]) -> Mesh:
  return jax.make_mesh(
    (len(devices), 1),
    AXES,
    axis_types=(jax.sharding.AxisType.Auto,) * 2,
    devices=devices,
  )


def batch_sharding(mesh: Mesh) -> NamedSharding:
  """Returns the sharding that splits the first axis over all devices."""
  return NamedSharding(mesh, P(AXES))


def replicated(mesh: Mesh) -> NamedSharding:
  """Returns the sharding that puts the whole array on every device."""
  return NamedSharding(mesh, P())


def parameter_shardings(mesh: Mesh, tree):
  """Returns the shardings for parameters or optimizer state.

  Args:
    mesh: The mesh of all devices.
    tree: A pytree of arrays or `jax.ShapeDtypeStruct`s.

  Returns:
    The tree with a sharding in place of every leaf. It splits the leaf's
    largest axis that `fsdp` divides over `fsdp`. A leaf without such an axis is
    replicated, and so are a few vectors, such as biases, norms and prototypes:
    to gather them takes longer than they are worth, and where prototypes are
    split, XLA exchanges what is computed of them for every image.
  """
  size = mesh.shape["fsdp"]

  def sharding(leaf):
    if leaf.size < _FEWEST_VECTORS * max(leaf.shape, default=1):
      return replicated(mesh)
    axes = sorted(range(leaf.ndim), key=lambda i: leaf.shape[i], reverse=True)
    for axis in axes:
      if size > 1 and leaf.shape[axis] % size == 0:
        spec = [None] * leaf.ndim
        spec[axis] = "fsdp"
        return NamedSharding(mesh, P(*spec))
    return replicated(mesh)

  return jax.tree.map(sharding, tree)


def abstract(tree, shardings):
  """Returns the shapes, dtypes and shardings of a pytree, without its values.

  Args:
    tree: A pytree of arrays or `jax.ShapeDtypeStruct`s.
    shardings: The shardings of its leaves, e.g. from `parameter_shardings`.

  Returns:
    The tree with a `jax.ShapeDtypeStruct` in place of every leaf.
  """
  return jax.tree.map(
    lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
    tree,
    shardings,
  )


def check_batch_size(mesh: Mesh, batch_size: int) -> None:
  """Checks that a global batch can be split over all devices.

  Args:
    mesh: The mesh of all devices.
    batch_size: The number of images in a global batch.

  Raises:
    ValueError: If the batch is empty, or the number of devices does not divide
      its size.
  """
  if batch_size < 1:
    raise ValueError(f"`batch_size` is {batch_size}; expected 1 or more.")
  if batch_size % mesh.size:
    nearest = max(1, round(batch_size / mesh.size)) * mesh.size
    raise ValueError(
      f"`batch_size` is {batch_size}, which cannot be split equally over "
      f"{mesh.size} devices; the nearest size that can is {nearest}."
    )


def to_global(batch: np.ndarray, sharding: NamedSharding) -> jax.Array:
  """Combines each process's rows of a batch into one global array."""
  return jax.make_array_from_process_local_data(sharding, batch)


def to_local(array: jax.Array) -> np.ndarray:
  """Returns this process's rows of a global batch, in order, in numpy."""
  if jax.process_count() == 1:
    return np.asarray(array)
  shards = {s.index[0].start or 0: s.data for s in array.addressable_shards}
  return np.concatenate([np.asarray(shards[i]) for i in sorted(shards)])


def to_host(array: jax.Array) -> np.ndarray:
  """Returns the whole of an array, which all its processes must ask for."""
  if array.is_fully_replicated:
    return np.asarray(array.addressable_data(0))
  from jax.experimental import multihost_utils

  return np.asarray(multihost_utils.process_allgather(array, tiled=True))


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
  from jax.experimental import multihost_utils

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
