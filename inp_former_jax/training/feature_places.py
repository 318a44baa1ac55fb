"""Where features are kept while a run trains: devices, memory, or a file."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import psutil
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from inp_former_jax import sharding
from inp_former_jax.data.row_file import CacheError, RowFile, free_disk
from inp_former_jax.data.training_examples import Example
from inp_former_jax.processes import exchange
from inp_former_jax.training.progress import announce

DEVICE, HOST, DISK = "device", "host", "disk"
_PASSING = "passing"  # the host's memory, on the way to the devices
_NAMES = {
  DEVICE: "in the memory of each device",
  _PASSING: "in the memory of the host on the way there",
  HOST: "in the memory of the host",
  DISK: "on the disk",
}
# Of the free memory, the rest is left to the training itself.
_SHARE = 0.5


class HostRows:
  """Rows in the memory of the host."""

  def __init__(self, count: int, shape: tuple[int, ...], dtype: np.dtype):
    """Makes room for rows.

    Args:
      count: The number of rows.
      shape: The shape of a row.
      dtype: The dtype of a row.
    """
    # The system gives memory only to rows that are written.
    self._rows = np.empty((count, *shape), dtype)
    self._written = np.zeros(count, bool)

  def read(self, index: int) -> np.ndarray | None:
    """Returns a row, or None if it has not been written."""
    return self._rows[index] if self._written[index] else None

  def write(self, index: int, row: np.ndarray) -> None:
    """Writes a row."""
    self._rows[index] = row
    self._written[index] = True


Rows = RowFile | HostRows


class DeviceFeatures:
  """Groups on the devices, each of which holds a part of the images."""

  def __init__(self, table: jax.Array, mesh: Mesh):
    """Gives access to a table.

    Args:
      table: The groups of all images, (n, 2, N, C), split over the devices
        along the images.
      mesh: The devices.
    """
    self._table = table
    self._gather = _make_gather(mesh)

  def example(self, number: int) -> Example:
    """Returns what is sent to the devices for an image: its number alone.

    Args:
      number: The number of the image.
    """
    return {"index": np.int32(number)}

  def groups(self, batch: Mapping[str, jax.Array]) -> jax.Array:
    """Gathers the groups of a batch from the devices that hold them.

    Args:
      batch: Examples as global arrays.

    Returns:
      The groups, (B, 2, N, C).
    """
    return self._gather(self._table, batch["index"])


class StoredFeatures:
  """Groups that are sent to the devices batch by batch."""

  def __init__(self, rows: Rows):
    """Gives access to rows.

    Args:
      rows: The groups of all images.
    """
    self._rows = rows

  def example(self, number: int) -> Example:
    """Returns what is sent to the devices for an image: its groups.

    Args:
      number: The number of the image.
    """
    return {"groups": _read(self._rows, number)}

  def groups(self, batch: Mapping[str, jax.Array]) -> jax.Array:
    """Returns the groups of a batch, which are on the devices already.

    Args:
      batch: Examples as global arrays.

    Returns:
      The groups, (B, 2, N, C).
    """
    return batch["groups"]


Features = DeviceFeatures | StoredFeatures


def choose(file: RowFile, mesh: Mesh) -> tuple[str, bool]:
  """Chooses where features are kept, and tells the user.

  All processes of the mesh must call this function; they choose the same.

  Args:
    file: The file of the cache, which may hold some of the rows.
    mesh: The devices that train.

  Returns:
    DEVICE, HOST or DISK, and whether they are kept in the file as well.

  Raises:
    CacheError: If they fit nowhere.
  """
  missing = file.count_missing()
  on_disk = free_disk(file.path.parent)
  stored = _everywhere(missing * file.row_bytes <= on_disk)
  needed = _needed(file, mesh, missing, stored)
  on_host = int(_SHARE * free_host_memory())
  on_device = int(_SHARE * free_device_memory(mesh))
  free = {DEVICE: on_device, _PASSING: on_host, HOST: on_host, DISK: on_disk}
  fits = {place: _everywhere(needed[place] <= free[place]) for place in needed}
  fits[DEVICE] &= fits.pop(_PASSING)
  where = next((place for place, fit in fits.items() if fit), None)
  size = (
    f"{needed[HOST] / 1e9:.2f} GB ({file.count:,} x "
    f"{file.data_bytes / 1e6:.2f} MB)"
  )
  if where is None:
    raise CacheError(
      f"The features of the training images, {size}, fit nowhere: "
      f"{_figures(needed, free)}. Set `cache`=images or `cache`=off, or "
      "`cache_dir` to a folder on a larger disk."
    )
  kept = f"kept in {file.path}"
  if not stored:
    kept = f"{missing:,} of them not kept: the disk is too full"
  before = file.count - missing
  announce(
    f"Features: {size}, {before:,} computed before, {_NAMES[where]}, {kept}."
  )
  if where == DISK:
    announce(f"They are read from there: {_figures(needed, free)}.")
  return where, stored


def _needed(
  file: RowFile, mesh: Mesh, missing: int, stored: bool
) -> dict[str, int]:
  """Returns the bytes that each place needs; of devices, each of them."""
  part = -(-file.count // mesh.size) * file.data_bytes
  own = part * len(mesh.local_devices)
  passing = part  # one device's part is put together at a time
  if not stored:
    passing += own  # the rows themselves, until all are on the devices
  if any(_limit(device) is None for device in mesh.local_devices):
    passing += own  # the devices' copies
  return {
    DEVICE: part,
    _PASSING: passing,
    HOST: file.count * file.data_bytes,
    DISK: missing * file.row_bytes,
  }


def _everywhere(fits: bool) -> bool:
  """Returns whether something fits on all processes."""
  return bool(exchange.gather_processes(np.array([fits])).all())


def _figures(needed: Mapping[str, int], free: Mapping[str, int]) -> str:
  return ", ".join(
    f"{_NAMES[place]} {needed[place] / 1e9:.2f} GB are needed and "
    f"{free[place] / 1e9:.2f} GB to spare"
    for place in needed
  )


def free_host_memory() -> int:
  """Returns the memory of the host that is free, in bytes."""
  return psutil.virtual_memory().available


def free_device_memory(mesh: Mesh) -> int:
  """Returns the memory that is free on every device of this process, in bytes.

  Args:
    mesh: The devices that train. CPU devices share the memory of the host.
  """
  free = []
  for device in mesh.local_devices:
    limit = _limit(device)
    if limit is None:
      free.append(free_host_memory() // len(mesh.local_devices))
    else:
      free.append(limit - device.memory_stats()["bytes_in_use"])
  return min(free)


def _limit(device: jax.Device) -> int | None:
  """Returns a device's memory; None if it uses the host's, as a CPU does."""
  return (device.memory_stats() or {}).get("bytes_limit")


def own_rows(count: int, mesh: Mesh, where: str) -> Sequence[int]:
  """Returns the rows that this process needs.

  Args:
    count: The number of rows.
    mesh: The devices that train.
    where: Where the rows are kept. On devices, each process needs those of its
      own devices; elsewhere all, because it may draw any of them.
  """
  if where != DEVICE:
    return range(count)
  layout = sharding.batch_sharding(mesh)
  parts = layout.addressable_devices_indices_map((_padded(count, mesh),))
  own: set[int] = set()
  for slices in parts.values():
    assert slices is not None  # None stands for devices of other processes
    own.update(range(count)[slices[0]])
  return sorted(own)


def rows_in_memory(file: RowFile, own: Sequence[int]) -> HostRows:
  """Makes room for all rows in the memory of the host.

  Args:
    file: The file of the cache.
    own: The rows to read from the file, as far as it holds them.
  """
  rows = HostRows(file.count, file.shape, file.dtype)
  for index in own:
    row = file.read(index)
    if row is not None:
      rows.write(index, row)
  return rows


def place(rows: Rows, file: RowFile, mesh: Mesh, where: str) -> Features:
  """Brings features to the place where they are kept.

  Args:
    rows: The rows, of which those of `own_rows` are there.
    file: The file of the cache, which has the rows' shape and dtype.
    mesh: The devices that train.
    where: DEVICE, HOST or DISK.

  Returns:
    The features.
  """
  if where == DEVICE:
    return DeviceFeatures(_table(rows, file, mesh), mesh)
  if where == HOST and not isinstance(rows, HostRows):
    memory = HostRows(file.count, file.shape, file.dtype)
    for i in range(file.count):
      memory.write(i, _read(rows, i))
    rows = memory
  return StoredFeatures(rows)


def _table(rows: Rows, file: RowFile, mesh: Mesh) -> jax.Array:
  """Puts rows on the devices, (n, ...), where n is padded with zeros."""
  whole = (_padded(file.count, mesh), *file.shape)
  layout = sharding.batch_sharding(mesh)
  parts = []
  for device, slices in layout.addressable_devices_indices_map(whole).items():
    assert slices is not None  # as it is for the devices of this process
    start, stop, _ = slices[0].indices(whole[0])
    values = np.zeros((stop - start, *file.shape), file.dtype)
    for i in range(start, min(stop, file.count)):
      values[i - start] = _read(rows, i)
    # The host holds one part at a time: the next is not begun before.
    parts.append(jax.block_until_ready(jax.device_put(values, device)))
    del values
  return jax.make_array_from_single_device_arrays(whole, layout, parts)


def _padded(count: int, mesh: Mesh) -> int:
  return math.ceil(count / mesh.size) * mesh.size


def _read(rows: Rows, index: int) -> np.ndarray:
  row = rows.read(index)
  if row is None:
    name = rows.path if isinstance(rows, RowFile) else "the memory"
    raise CacheError(
      f"Row {index} of {name} has been damaged since this run began. Start it "
      "again: it resumes, and computes the row again."
    )
  return row


def _make_gather(mesh: Mesh) -> Callable[[Any, Any], jax.Array]:
  """Builds the function that takes rows out of a table on the devices.

  Args:
    mesh: The devices, over which table and numbers are split.

  Returns:
    A jitted function from the table, (n, ...), and numbers of rows, (B,), to
    the rows, (B, ...), split over the devices. The values are exact: all but
    one of the summands are zero.
  """

  def gather(table, index):
    index = jax.lax.all_gather(index, sharding.AXES, tiled=True)
    place = index - jax.lax.axis_index(sharding.AXES) * table.shape[0]
    mine = (place >= 0) & (place < table.shape[0])
    rows = table[jnp.where(mine, place, 0)]
    rows = jnp.where(jnp.expand_dims(mine, range(1, rows.ndim)), rows, 0)
    return jax.lax.psum_scatter(rows, sharding.AXES, tiled=True)

  if mesh.size == 1:
    return jax.jit(lambda table, index: table[index])
  split = P(sharding.AXES)
  return jax.jit(
    jax.shard_map(gather, mesh=mesh, in_specs=(split, split), out_specs=split)
  )
