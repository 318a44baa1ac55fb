"""The published rates of TPU chips, and the time that work takes at least.

The time is a bound and no measurement: it supposes that matrix products, memory
and links each run at their full rate, and at the same time.

Source: the "TPU v5e", "TPU v5p" and "TPU v6e" pages of Google Cloud's
documentation (docs.cloud.google.com/tpu/docs), read on 2026-11-25. They give
the links' bandwidth for both directions together; a device sends with half.
"""

import dataclasses
from collections.abc import Sequence

import jax

from inp_former_jax.benchmarks.collectives import Collective

COMPUTE, MEMORY, LINKS = "compute", "HBM", "ICI"


@dataclasses.dataclass(frozen=True)
class Chip:
  """What a chip can do.

  Attributes:
    name: Its name, as topologies begin with it.
    flops: Floating-point operations per second in bfloat16.
    memory_bytes: Size of its memory (HBM).
    memory_rate: Bytes per second that its memory reads and writes.
    link_rate: Bytes per second that it can send to other chips (ICI), over all
      of its links.
  """

  name: str
  flops: float
  memory_bytes: int
  memory_rate: float
  link_rate: float


CHIPS = {  # by the kind that JAX gives its devices
  "TPU v5 lite": Chip("v5e", 197e12, 16 * 2**30, 819e9, 400e9 / 2),
  "TPU v5": Chip("v5p", 459e12, 95 * 2**30, 2765e9, 1200e9 / 2),
  "TPU v6 lite": Chip("v6e", 918e12, 32 * 2**30, 1638e9, 800e9 / 2),
}


def find(device: jax.Device) -> Chip | None:
  """Returns the chip that a device is, or None if its rates are not known."""
  return CHIPS.get(device.device_kind)


def shortest_times(
  chip: Chip, flops: float, num_bytes: float, found: Sequence[Collective]
) -> dict[str, float]:
  """Computes the times that the parts of a program take at least, in seconds.

  Args:
    chip: The chip that runs it.
    flops: Floating-point operations of each chip.
    num_bytes: Bytes that each chip reads from its memory and writes to it.
    found: The exchanges between the chips.

  Returns:
    The times of the arithmetic, of the memory and of the links. None of them
    can be undercut, so the largest bounds the program.
  """
  return {
    COMPUTE: flops / chip.flops,
    MEMORY: num_bytes / chip.memory_rate,
    LINKS: sum(c.sent_bytes for c in found) / chip.link_rate,
  }
