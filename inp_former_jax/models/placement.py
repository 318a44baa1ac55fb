"""The devices that a function is traced for, which decide its fastest form.

A kernel (Pallas) and a loop over images cannot be split over devices by the
compiler, so each device runs them on its own images.
"""

import contextlib
import contextvars
import functools
from collections.abc import Callable, Generator

import jax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from inp_former_jax import sharding

_DEVICES: contextvars.ContextVar[Mesh | str | None] = contextvars.ContextVar(
  "devices", default=None
)
_ANY = "any"


@contextlib.contextmanager
def on_mesh(mesh: Mesh) -> Generator[None]:
  """Tells what is traced meanwhile on which devices it will run.

  Also a decorator: `jax.jit(on_mesh(mesh)(function))`.

  Args:
    mesh: The devices, over all of which the first axis of every batch is split.

  Yields:
    Nothing.
  """
  with (
    _telling(mesh),
    jax.sharding.use_abstract_mesh(mesh.abstract_mesh),
  ):
    yield


@contextlib.contextmanager
def on_any_device() -> Generator[None]:
  """Tells that what is traced meanwhile is for other machines (exports)."""
  with _telling(_ANY):
    yield


@contextlib.contextmanager
def _telling(devices: Mesh | str) -> Generator[None]:
  token = _DEVICES.set(devices)
  try:
    yield
  finally:
    _DEVICES.reset(token)


def platform() -> str | None:
  """Returns the kind of the devices, "cpu", "gpu" or "tpu", if it is known.

  Without a mesh, it is that of the only device; with several devices there is
  no telling over which of them a batch is split, and it is None.
  """
  devices = _DEVICES.get()
  if isinstance(devices, Mesh):
    return devices.devices.flat[0].platform
  if devices == _ANY or jax.device_count() > 1:
    return None
  return jax.default_backend()


def per_device(
  function: Callable[[jax.Array], jax.Array], batch: jax.Array
) -> jax.Array:
  """Calls a function on every device for the rows of a batch that it holds.

  Args:
    function: A function from an array with the images as its first axis to
      another such array, in which no image influences another.
    batch: Its argument.

  Returns:
    What the function returns for the whole batch.
  """
  mesh = _DEVICES.get()
  if not isinstance(mesh, Mesh) or mesh.size == 1:
    return function(batch)
  rows = P(mesh.axis_names)
  return jax.shard_map(
    function, in_specs=rows, out_specs=rows, check_vma=False
  )(batch)


def gathered(weight: jax.Array) -> jax.Array:
  """Makes a weight that is split over devices whole, just before its use.

  Left to itself, XLA may rather split what is computed of the images, or pass
  the pieces of a weight around piece by piece, whichever it takes to be less.
  What devices exchange then depends on the batch.

  Args:
    weight: A parameter, or one in another dtype.

  Returns:
    The weight. Its gradient is split again, as the parameter is.
  """
  mesh = _DEVICES.get()
  if not isinstance(mesh, Mesh):
    return weight
  split = sharding.parameter_shardings(mesh, weight)
  return weight if split.is_fully_replicated else _gather(split, weight)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _gather(split: NamedSharding, weight: jax.Array) -> jax.Array:
  return jax.lax.with_sharding_constraint(weight, split.update(spec=P()))


def _gather_forward(
  split: NamedSharding, weight: jax.Array
) -> tuple[jax.Array, None]:
  return _gather(split, weight), None


def _gather_backward(
  split: NamedSharding, unused: None, gradient: jax.Array
) -> tuple[jax.Array]:
  # Summed first: XLA would build the sum of one piece after another into the
  # product, and write each of them.
  whole = split.update(spec=P())
  gradient = jax.lax.with_sharding_constraint(gradient, whole)
  return (jax.lax.with_sharding_constraint(gradient, split),)


_gather.defvjp(_gather_forward, _gather_backward)
