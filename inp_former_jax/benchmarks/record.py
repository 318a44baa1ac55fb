"""The machine that something was measured on, and the record as JSON."""

import dataclasses
import datetime
import json
import pathlib
import platform
from typing import Any

import jax
import jaxlib.version

import inp_former_jax
from inp_former_jax.atomic import replacing
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


def write(path: pathlib.Path, content: dict[str, Any]) -> None:
  """Writes a record as JSON.

  Args:
    path: The file, which is replaced if it exists.
    content: The record; dataclasses become objects with their fields.
  """
  text = json.dumps(content, indent=2, default=_plain)
  with replacing(path) as part:
    part.write_text(text + "\n", encoding="utf-8")


def _plain(value: Any) -> Any:
  if dataclasses.is_dataclass(value) and not isinstance(value, type):
    return dataclasses.asdict(value)
  raise TypeError(f"{type(value).__name__} cannot be written as JSON.")
