"""The mesh, shardings of batches and parameters, and exchange between hosts.

A single device is the smallest mesh and is treated like any other.
"""

import functools
from collections.abc import Callable, Mapping, Sequence

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

AXES = ("data", "fsdp")
_FEWEST_VECTORS = 16  # of a leaf that is split over devices
SUM_ELEMENTS = 2**18  # 4 MiB of int64 on their way, 1 MiB of float32


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
  """Returns the sum over all processes, which must all call this.

  The devices add it up, in pieces of SUM_ELEMENTS, so that the memory it takes
  does not grow with the number of processes.

  Args:
    array: A host array of the same shape on all processes. Sums of int64 are
      exact; those of float32 are so where only one process has a value.

  Returns:
    The sum, of the same shape and dtype, equal on all processes.

  Raises:
    TypeError: If the array is neither int64 nor float32.
  """
  if array.dtype not in (np.int64, np.float32):
    raise TypeError(f"Sums are of int64 or float32, not of {array.dtype}.")
  if jax.process_count() == 1:
    return array.copy()
  first: dict[int, jax.Device] = {}
  for device in jax.devices():
    first.setdefault(device.process_index, device)
  own = first[jax.process_index()]
  return sum_over_devices({own: array}, [first[i] for i in sorted(first)])


def sum_over_devices(
  arrays: Mapping[jax.Device, np.ndarray], devices: Sequence[jax.Device]
) -> np.ndarray:
  """Returns the sum of host arrays, one for each of some devices.

  Args:
    arrays: The arrays of this process's devices, equally shaped, int64 or
      float32.
    devices: All the devices, of this process and of others.

  Returns:
    The sum, as from `sum_over_processes`.
  """
  shape, dtype = next((a.shape, a.dtype) for a in arrays.values())
  flat = {device: array.ravel() for device, array in arrays.items()}
  size = next(len(array) for array in flat.values())
  total = np.zeros(size, dtype)
  mesh = Mesh(np.array(devices), ("part",))
  add = _adding(mesh)
  for start in range(0, size, SUM_ELEMENTS):
    piece = slice(start, start + SUM_ELEMENTS)
    rows = [
      jax.device_put(_to_words(array[piece])[None], device)
      for device, array in flat.items()
    ]
    words = jax.make_array_from_single_device_arrays(
      (len(devices), *rows[0].shape[1:]), NamedSharding(mesh, P("part")), rows
    )
    found = np.asarray(add(words).addressable_data(0))
    total[piece] = _from_words(found, dtype)
  return total.reshape(shape)


@functools.cache
def _adding(mesh: Mesh) -> Callable[[jax.Array], jax.Array]:
  """Returns the compiled sum over the rows of the mesh's devices."""
  return jax.jit(lambda rows: rows.sum(axis=0), out_shardings=replicated(mesh))


def _to_words(array: np.ndarray) -> np.ndarray:
  """Returns float32 as it is, and int64 (n,) as (4, n) uint32 of 16 bits each.

  JAX without x64 has no 64-bit numbers. Sums of 16 bits fit into 32 for up to
  65,536 processes.
  """
  if array.dtype == np.float32:
    return array
  shifts = np.arange(0, 64, 16, dtype=np.uint64)[:, None]
  return ((array.view(np.uint64) >> shifts) & np.uint64(0xFFFF)).astype("u4")


def _from_words(words: np.ndarray, dtype: np.dtype) -> np.ndarray:
  """Returns the sum from the sums of the words."""
  if dtype == np.float32:
    return words
  shifts = np.arange(0, 64, 16, dtype=np.uint64)[:, None]
  # Modulo 2**64, so that negative numbers come out right, too.
  parts = words.astype(np.uint64) << shifts
  return parts.sum(axis=0, dtype=np.uint64).view(np.int64)


def gather_processes(array: np.ndarray) -> np.ndarray:
  """Stacks the equally shaped host arrays of all processes on a new axis."""
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
