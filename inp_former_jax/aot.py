"""Compiles for TPUs, without any: python -m inp_former_jax.aot --config=CONFIG.

PYTHONPATH=FOLDER python -m inp_former_jax.aot --config=mvtec \
  --topology=v5e:2x2 --chips=1

It prints how many operations prediction and training step of the config do, how
many bytes they read and write, and how much memory they take on each chip, by
the TPU compiler's count (of our attention kernel, by the kernel's own
estimate). It needs libtpu, in a folder of its own, so that
no other command looks for a TPU: pip install --target=FOLDER --no-deps libtpu.
"""

from absl import flags
from ml_collections import ConfigDict

from inp_former_jax import command_line
from inp_former_jax.benchmarks import ahead_of_time


def main(argv: list[str]) -> None:
  """Compiles, and prints the table.

  Args:
    argv: The program.
  """
  command_line.start(argv)
  command_line.call(_run, _CONFIG.value)


def _run(config: ConfigDict) -> None:
  mesh = ahead_of_time.topology_mesh(
    _TOPOLOGY.value, _CHIPS.value, config.mesh.fsdp
  )
  print(
    f"{config.model.encoder}, {config.model.dtype}, batch {config.batch_size} "
    f"on {mesh.size} chips of {_TOPOLOGY.value}",
    flush=True,
  )
  programs = ahead_of_time.compile_works(config, mesh)
  print(ahead_of_time.format_table(programs, config.batch_size, mesh.size))


if __name__ == "__main__":
  ahead_of_time.use_cpu()
  _CONFIG = command_line.define_config()
  _TOPOLOGY = flags.DEFINE_string(
    "topology", "v5e:2x2", "Kind and arrangement of the chips."
  )
  _CHIPS = flags.DEFINE_integer(
    "chips", 0, "Number of its chips to compile for; all by default.", 0
  )
  command_line.run(main, example="mvtec", uses_records=False)
