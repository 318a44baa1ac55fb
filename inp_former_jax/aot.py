"""Compiles for TPUs, without any: python -m inp_former_jax.aot --config=CONFIG.

PYTHONPATH=FOLDER python -m inp_former_jax.aot --config=super_multi_class \
  --topology=v5e:4x4 --config.batch_size=256

It compiles prediction and training step of the config with its mesh, as a run
on these chips would, and prints what each chip would do: the memory that
parameters, optimizer and intermediate values take, and whether it fits; the
operations, the bytes read from and written to memory, and what the chips
exchange; and the time that each of the three takes at least, by the chip's
published rates. That is a bound and no measurement. Neither data nor weights
are read. --sweep searches the largest batch whose training step fits without
XLA computing values again to save memory, which it does before it gives up.

Operations and bytes are the compiler's count; of our attention kernel, by the
estimate that the kernel carries. A loop of unknown length counts once.

libtpu compiles without a TPU. It belongs into a folder of its own, named by
PYTHONPATH for this command alone: pip install --target=FOLDER --no-deps libtpu.
There is no extra for it, because wherever JAX finds libtpu and is not told the
platform (JAX_PLATFORMS=cpu), every command tries to start a TPU first. This
command sets its own platform, takes no lock, and may run several times at once.
"""

import pathlib
from typing import Any

from absl import flags
from jax.sharding import Mesh
from ml_collections import ConfigDict

from inp_former_jax import command_line, field_ranges
from inp_former_jax.atomic import write_json
from inp_former_jax.benchmarks import (
  ahead_of_time,
  ahead_of_time_table,
  largest_batch,
  steps,
  tpu_chips,
)
from inp_former_jax.benchmarks import record as records


def main(argv: list[str]) -> None:
  """Compiles, and prints the table.

  Args:
    argv: The program.
  """
  command_line.start(argv)
  command_line.call(_run, _CONFIG.value)


def _run(config: ConfigDict) -> None:
  field_ranges.check_fields(config)
  mesh = ahead_of_time.topology_mesh(
    _TOPOLOGY.value,
    _CHIPS.value,
    data=config.mesh.data,
    fsdp=config.mesh.fsdp,
  )
  found: dict[str, Any] = {
    "machine": records.machine(),
    "libtpu": ahead_of_time.libtpu_version(),
    "topology": _TOPOLOGY.value,
    "mesh": dict(mesh.shape),
  }
  print(_describe(config, mesh, found), flush=True)
  if _SWEEP.value:
    found["largest_batch_per_chip"] = _sweep(config, mesh)
    config = ahead_of_time.with_batch(
      config, mesh.size * max(1, found["largest_batch_per_chip"])
    )
  found["config"] = config.to_dict()
  found["works"] = {work: _compile(config, mesh, work) for work in _WORKS.value}
  print(f"batch {config.batch_size}, {config.batch_size / mesh.size:g} a chip")
  print(ahead_of_time_table.format_table(found["works"]))
  for work, figures in found["works"].items():
    if not figures["fits"]:
      print(f"{work} does not fit: {figures['refusal']}")
  if _JSON.value:
    write_json(_JSON.value, found)


def _compile(config: ConfigDict, mesh: Mesh, work: str) -> dict[str, Any]:
  """Compiles a kind of work, and returns its figures."""
  compiled = ahead_of_time.compile_work(config, mesh, work)
  if _PROGRAMS.value and compiled.program:
    folder = pathlib.Path(_PROGRAMS.value)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{work}.hlo").write_text(compiled.program.text)
  return ahead_of_time_table.record(compiled, config.batch_size, mesh)


def _describe(config: ConfigDict, mesh: Mesh, found: dict[str, Any]) -> str:
  model = config.model
  chips = f"{mesh.size} {'chip' if mesh.size == 1 else 'chips'}"
  return (
    f"{model.encoder}, {model.dtype}{', remat' if model.remat else ''}, "
    f"{config.data.crop} pixels, on {chips} of {found['topology']} "
    f"(data={mesh.shape['data']}, fsdp={mesh.shape['fsdp']}), jax "
    f"{found['machine']['jax']}, libtpu {found['libtpu']}, "
    f"{found['machine']['date'][:10]}"
  )


def _sweep(config: ConfigDict, mesh: Mesh) -> int:
  """Searches the largest batch of each chip whose training step fits."""
  chip = tpu_chips.find(mesh.devices.flat[0])
  if chip is None:
    raise ValueError(
      f"--sweep knows {', '.join(c.name for c in tpu_chips.CHIPS.values())}, "
      f"not {mesh.devices.flat[0].device_kind}."
    )

  def memory(batch: int) -> int | None:
    changed = ahead_of_time.with_batch(config, batch * mesh.size)
    compiled = ahead_of_time.compile_work(changed, mesh, steps.STEP)
    size = compiled.memory_bytes
    said = compiled.refusal if size is None else f"{size / 2**20:,.0f} MiB"
    if compiled.recomputed:
      said += f", XLA computes {compiled.recomputed:,} operations again"
      size = None
    print(f"{batch} a chip: {said}", flush=True)
    return size

  start = max(1, config.batch_size // mesh.size)
  # The compiler keeps some of it for itself.
  limit = int(0.98 * chip.memory_bytes)
  largest = largest_batch.search(memory, limit, start=start)
  print(f"the largest batch of a chip is {largest}", flush=True)
  return largest


if __name__ == "__main__":
  ahead_of_time.use_cpu()
  _CONFIG = command_line.define_config()
  _TOPOLOGY = flags.DEFINE_string(
    "topology",
    "v5e:2x2",
    "Kind and arrangement of the chips, e.g. v5e:4x4, v5p:2x2x4 or v6e:4x4.",
  )
  _CHIPS = flags.DEFINE_integer(
    "chips", 0, "Number of its chips to compile for; all by default.", 0
  )
  _WORKS = flags.DEFINE_multi_enum(
    "work",
    list(ahead_of_time.WORKS),
    ahead_of_time.WORKS,
    "What to compile; both by default.",
  )
  _SWEEP = flags.DEFINE_bool(
    "sweep",
    False,
    "Search the largest batch whose training step fits as it is written.",
  )
  _PROGRAMS = flags.DEFINE_string(
    "programs", "", "Folder to write the compiled programs to, as text."
  )
  _JSON = flags.DEFINE_string("json", "", "File to write the figures to.")
  command_line.run(main, example="mvtec")
