"""Describes the machine that something was measured on."""

import datetime
import pathlib
import platform
from typing import Any

import jax
import jaxlib.version

import inp_former_jax
from inp_former_jax.data.worker_processes import usable_cores


def machine() -> dict[str, Any]:
  """Returns what the figures depend on besides the program."""
  device = jax.devices()[0]
  return {
    "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    "device": device.device_kind,
    "platform": device.platform,
    "num_devices": jax.device_count(),
    "processor": processor(),
    "cores": usable_cores(),
    "system": platform.platform(),
    "python": platform.python_version(),
    "jax": jax.__version__,
    "jaxlib": jaxlib.version.__version__,
    "inp_former_jax": inp_former_jax.__version__,
  }


def processor() -> str:
  """Returns the name of the processor, or its architecture."""
  file = pathlib.Path("/proc/cpuinfo")
  text = file.read_text(errors="replace") if file.is_file() else ""
  for line in text.splitlines():
    name, _, value = line.partition(":")
    if name.strip() == "model name":
      return value.strip()
  return platform.processor() or platform.machine()
