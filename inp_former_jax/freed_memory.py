"""Keeps memory that is freed, so that a step need not ask for it again.

On a CPU, XLA allocates the temporaries of a step anew each time. By default,
glibc returns blocks of that size to the operating system when they are freed,
which then fills them with zeros page by page when they are next used: a sixth
of the CPU time of a training step.
"""

import ctypes
import importlib.metadata
import importlib.util
import os
import platform

import jax

# Of malloc.h, with the values that make glibc keep what is freed.
_M_TRIM_THRESHOLD, _NEVER = -1, -1
_M_MMAP_MAX, _NO_BLOCKS = -4, 0  # mapped blocks are unmapped when freed
_M_ARENA_MAX, _ONE = -8, 1  # further arenas map large blocks all the same

_OWN_SETTINGS = ("MALLOC_", "GLIBC_TUNABLES")  # beginnings of variables


def keep() -> bool:
  """Makes this process keep the memory that it frees, if that helps.

  A command that trains calls it before the first use of a device, because a
  thread that exists keeps its arena. It helps where JAX computes on a CPU and
  memory is glibc's. The process then stays as large as it once was. Nothing
  happens if the user has set glibc's own variables, such as
  MALLOC_TRIM_THRESHOLD_.

  Returns:
    Whether freed memory will be kept.
  """
  if platform.libc_ver()[0] != "glibc" or not _computes_on_cpu():
    return False
  if any(name.startswith(_OWN_SETTINGS) for name in os.environ):
    return False
  mallopt = ctypes.CDLL(None).mallopt
  settings = (
    (_M_ARENA_MAX, _ONE),
    (_M_MMAP_MAX, _NO_BLOCKS),
    (_M_TRIM_THRESHOLD, _NEVER),
  )
  return all([mallopt(name, value) == 1 for name, value in settings])


def _computes_on_cpu() -> bool:
  """Returns whether JAX will use the CPU, as far as is known before it starts.

  Where a plugin for another device is installed, that device may be missing;
  its host is not slowed by a setting that it does not get.
  """
  platforms = jax.config.values["jax_platforms"]
  if platforms:
    return platforms.split(",")[0] == "cpu"
  return not (
    importlib.metadata.entry_points(group="jax_plugins")
    or importlib.util.find_spec("jax_plugins")
    or importlib.util.find_spec("libtpu")
  )
