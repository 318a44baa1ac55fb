"""Keeps compiled programs on the disk, so that the next start need not wait.

JAX can do so, but does not unless it is told where. A command calls `enable`
before it compiles anything.
"""

import hashlib
import os
import pathlib
import platform

import jax
import jaxlib.version
from absl import logging

from inp_former_jax.user_cache import user_cache

# off, or a folder to use in place of the one in the user's cache folder.
VARIABLE = "INP_FORMER_JAX_COMPILATION_CACHE"
OFF = "off"
_JAX_VARIABLE = "JAX_COMPILATION_CACHE_DIR"
_MAX_BYTES = 1_000_000_000  # per folder; JAX then deletes what is oldest
_MIN_SECONDS = 0.2  # faster compilations are not worth a file

# What decides the code that is compiled for a CPU, in Linux's /proc/cpuinfo.
_CPU_FIELDS = (
  *("vendor_id", "cpu family", "model", "model name", "flags"),
  *("CPU implementer", "CPU part", "Features"),
)


def enable() -> pathlib.Path | None:
  """Makes JAX keep what it compiles from now on, in the user's cache folder.

  Nothing happens if the user has set JAX_COMPILATION_CACHE_DIR, which is JAX's
  own setting, or INP_FORMER_JAX_COMPILATION_CACHE=off. If the folder cannot be
  written, a warning is logged and everything is compiled as without a cache.

  Returns:
    The folder; None if this function has not set one.
  """
  if _JAX_VARIABLE in os.environ or os.environ.get(VARIABLE) == OFF:
    return None
  folder = "the user's cache folder"
  try:
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not os.access(folder, os.W_OK | os.X_OK):
      raise PermissionError("it may not be written")
  except (OSError, RuntimeError) as error:  # RuntimeError: there is no home
    reason = getattr(error, "strerror", None) or str(error).rstrip(".")
    logging.warning(
      "Compiled programs cannot be kept in %s: %s. Set %s to another folder, "
      "or to %s.",
      *(folder, reason, VARIABLE, OFF),
    )
    return None
  jax.config.update("jax_compilation_cache_dir", str(folder))
  jax.config.update("jax_compilation_cache_max_size", _MAX_BYTES)
  jax.config.update("jax_persistent_cache_min_compile_time_secs", _MIN_SECONDS)
  return folder


def cache_folder() -> pathlib.Path:
  """Returns the folder for what this JAX compiles on this kind of machine.

  XLA compiles for the very CPU that it runs on, and another one may lack some
  of its instructions. A home folder may serve machines of several kinds, so
  each kind, and each version of JAX, has a folder of its own.
  """
  named = os.environ.get(VARIABLE)
  if named:
    parent = pathlib.Path(named).expanduser().absolute()
  else:
    parent = user_cache() / "compilation"
  versions = f"jax{jax.__version__}-jaxlib{jaxlib.version.__version__}"
  return parent / f"{versions}-{platform.machine()}-{_cpu_digest()}"


def _cpu_digest() -> str:
  """Returns a checksum of the CPU's model and features."""
  try:
    text = pathlib.Path("/proc/cpuinfo").read_text(errors="replace")
  except OSError:
    # Elsewhere than on Linux: a folder per machine, whatever CPU it has.
    text = ""
  lines = {
    line
    for line in text.splitlines()
    if line.partition(":")[0].strip() in _CPU_FIELDS
  }
  known = "\n".join(sorted(lines)) or platform.node()
  return hashlib.sha256(known.encode()).hexdigest()[:12]
