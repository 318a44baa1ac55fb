"""Tables and records of what the compiler tells about absent TPUs."""

from collections.abc import Mapping, Sequence
from typing import Any

from jax.sharding import Mesh

from inp_former_jax.benchmarks import collectives, tpu_chips
from inp_former_jax.benchmarks.ahead_of_time import Compiled

_MIB = 2**20


def record(compiled: Compiled, batch_size: int, mesh: Mesh) -> dict[str, Any]:
  """Returns the figures of a kind of work, for each chip, as JSON holds them.

  Args:
    compiled: What the compiler told.
    batch_size: Number of images in the global batch.
    mesh: The chips that share it.
  """
  program = compiled.program
  found: dict[str, Any] = {
    "fits": program is not None,
    "parts_bytes": compiled.parts,
  }
  if program is None:
    return found | {"refusal": compiled.refusal}
  exchanges = collectives.by_kind(compiled.exchanges)
  found |= {
    "argument_bytes": program.argument_bytes,
    "temporary_bytes": program.temporary_bytes,
    "output_bytes": program.output_bytes,
    "alias_bytes": program.alias_bytes,
    "memory_bytes": compiled.memory_bytes,
    "recomputed_by_xla": compiled.recomputed,
    "flops": program.flops,
    "flops_by_shapes": compiled.flops,
    "bytes_accessed": program.bytes_accessed,
    "collectives": {
      kind: {"count": count, "bytes": size}
      for kind, (count, size) in exchanges.items()
    },
    "compile_seconds": program.compile_seconds,
  }
  chip = tpu_chips.find(mesh.devices.flat[0])
  if chip is not None and program.flops and program.bytes_accessed:
    times = tpu_chips.shortest_times(
      chip,
      # XLA counts a loop once, and fsdp turns products into loops.
      max(program.flops, compiled.flops),
      program.bytes_accessed,
      compiled.exchanges,
    )
    bound = max(times, key=times.__getitem__)
    found["hbm_bytes"] = chip.memory_bytes
    found["shortest_seconds"] = times
    found["bound_by"] = bound
    found["images_per_second_at_most"] = batch_size / times[bound]
  return found


def format_table(records: Mapping[str, Mapping[str, Any]]) -> str:
  """Formats the records of several kinds of work side by side.

  Args:
    records: What `record` returned, by work.
  """
  columns = [_cells(found) for found in records.values()]
  longest_first = sorted(columns, key=len, reverse=True)
  names = dict.fromkeys(name for cells in longest_first for name in cells)
  rows: list[Sequence[str]] = [("of each chip", *records)]
  rows += [(name, *(c.get(name, "-") for c in columns)) for name in names]
  widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
  return "\n".join(
    "  ".join(
      cell.ljust(width) if i == 0 else cell.rjust(width)
      for i, (cell, width) in enumerate(zip(row, widths, strict=True))
    ).rstrip()
    for row in rows
  )


def _cells(found: Mapping[str, Any]) -> dict[str, str]:
  """Formats the figures of a kind of work, by the names of their rows."""
  parts = found["parts_bytes"]
  cells = {name: _mib(size) for name, size in parts.items()}
  if not found["fits"]:
    return cells | {"fits": "no"}
  padding = (found["argument_bytes"] or 0) - sum(parts.values())
  cells["padding of these"] = _mib(padding)
  cells["temporary"] = _mib(found["temporary_bytes"])
  cells["in all"] = _mib(found["memory_bytes"])
  if "hbm_bytes" in found:
    cells["of HBM"] = _mib(found["hbm_bytes"])
  cells["fits"] = "yes"
  if found["recomputed_by_xla"]:
    cells["recomputed by XLA"] = f"{found['recomputed_by_xla']:,} operations"
  cells["operations"] = _figure(found["flops"], 1e9, " GFLOP")
  cells["of matrix products"] = _figure(found["flops_by_shapes"], 1e9, " GFLOP")
  cells["read and written"] = _figure(found["bytes_accessed"], 1e9, " GB")
  for kind, exchange in found["collectives"].items():
    cells[kind] = f"{exchange['count']} of {_mib(exchange['bytes'])}"
  return cells | _bounds(found)


def _bounds(found: Mapping[str, Any]) -> dict[str, str]:
  if "shortest_seconds" not in found:
    return {}
  cells = {
    f"{name}, at least": f"{1e3 * seconds:,.2f} ms"
    for name, seconds in found["shortest_seconds"].items()
  }
  cells["bound by"] = found["bound_by"]
  most = found["images_per_second_at_most"]
  cells["images/s of all chips, at most"] = f"{most:,.0f}"
  return cells


def _mib(size: int | None) -> str:
  return _figure(size, _MIB, " MiB")


def _figure(value: float | None, unit: float, suffix: str) -> str:
  """Formats a figure, or a dash where the compiler does not tell it."""
  if value is None:
    return "-"
  value /= unit
  return f"{value:,.{0 if abs(value) >= 100 else 1}f}{suffix}"
