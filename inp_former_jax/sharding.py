"""The mesh, and the shardings of batches and parameters.

A single device is the smallest mesh and is treated like any other.
"""

from collections.abc import Sequence

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

AXES = ("data", "fsdp")
_FEWEST_VECTORS = 16  # of a leaf that is split over devices


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
