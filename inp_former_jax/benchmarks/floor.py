"""The shortest time that work can take on a device, by rates measured there.

The floor is max(FLOPs / rate of a matrix product, bytes / rate of a copy). Both
rates are measured in the rounds of the work itself, on one of its devices and
in its compute dtype, so the floor is as slow as the machine is at the time.

* FLOPs are those of the layers' and attention's matrix products, counted from
  shapes (`models.complexity`).
* Bytes are those that no machine can avoid, however large its caches: every
  parameter and input is read once, and every output is written once. A training
  step also reads and writes its trainable parameters and the optimizer's state.
  Activations and gradients are not counted, because a compiler may fuse them
  away or keep them in a cache.

With several devices, both are those of one device's share.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

MATMUL, COPY = "matrix product", "copy"
_SIDES = {"cpu": 2048}  # of the matrices
_SIDE = 8192  # on an accelerator, which a smaller product would not fill
_COPIED = {"cpu": 2**28}  # bytes of the copied array, more than a cache holds
_COPIED_ELSEWHERE = 2**30


@dataclasses.dataclass(frozen=True)
class Rates:
  """What a device can do in a second, in one round.

  Attributes:
    flops: Floating-point operations of a matrix product.
    bytes: Bytes that a copy reads and writes.
  """

  flops: float
  bytes: float

  def floor(self, flops: float, num_bytes: float) -> float:
    """Returns the shortest time of work in seconds.

    Args:
      flops: Its floating-point operations.
      num_bytes: The bytes that it must read and write.
    """
    return max(flops / self.flops, num_bytes / self.bytes)


class Meter:
  """The two functions whose speed gives the rates of a device.

  Attributes:
    calls: The functions by name, MATMUL and COPY, for `rounds.interleave`.
  """

  def __init__(
    self, device: jax.Device, dtype: Any, *, side: int | None = None
  ):
    """Compiles both functions and calls them once.

    Args:
      device: The device.
      dtype: Compute dtype of the matrix product.
      side: Side of the matrices; by default 2048 on a CPU and 8192 elsewhere.
    """
    platform = device.platform
    self._side = side or _SIDES.get(platform, _SIDE)
    num_bytes = _COPIED.get(platform, _COPIED_ELSEWHERE)
    if side:
      num_bytes = 4 * side * side
    self._bytes = 2 * num_bytes
    self.calls = {
      MATMUL: self._product(device, dtype),
      COPY: self._copy(device, num_bytes),
    }
    for call in self.calls.values():
      call()

  def _product(self, device: jax.Device, dtype: Any) -> Callable[[], object]:
    shape = (self._side, self._side)
    # Random, because a GPU multiplies equal numbers faster than others.
    factor = jax.random.normal(jax.random.key(0), shape).astype(dtype)
    factor = jax.device_put(factor, device)
    product = jax.jit(jnp.matmul)
    return lambda: jax.block_until_ready(product(factor, factor))

  def _copy(self, device: jax.Device, num_bytes: int) -> Callable[[], object]:
    source = jax.device_put(jnp.zeros(num_bytes // 4, jnp.float32), device)
    # A plain copy might be elided.
    copy = jax.jit(lambda x: x + 1)
    return lambda: jax.block_until_ready(copy(source))

  def rates(self, seconds: dict[Any, tuple[float, ...]]) -> tuple[Rates, ...]:
    """Returns the rates of every round.

    Args:
      seconds: What `rounds.interleave` returned for `calls`, and others.
    """
    operations = 2 * self._side**3
    return tuple(
      Rates(operations / product, self._bytes / copy)
      for product, copy in zip(seconds[MATMUL], seconds[COPY], strict=True)
    )


def bytes_on_device(arrays: Any) -> int:
  """Returns the bytes that a device holds of a tree of arrays.

  Args:
    arrays: The tree. All devices hold equally much.
  """
  return sum(
    leaf.addressable_shards[0].data.nbytes for leaf in jax.tree.leaves(arrays)
  )
