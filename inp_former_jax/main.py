"""Command line: python -m inp_former_jax.main --config=FILE --workdir=DIR."""

import jax
from absl import app, flags

from inp_former_jax import command_line

_CONFIG, _WORKDIR = command_line.define_flags(
  "Folder for checkpoints, logs and results."
)
flags.adopt_module_key_flags(command_line)
_MODE = flags.DEFINE_enum(
  "mode",
  "train",
  ["train", "eval"],
  "train (or resume) and evaluate; or evaluate the newest checkpoint.",
)
_DISTRIBUTED = flags.DEFINE_bool(
  "distributed",
  False,
  "One process per host: initialise jax.distributed. On TPU pods and under "
  "Slurm it finds out the rest; elsewhere give the next three flags as well.",
)
_COORDINATOR = flags.DEFINE_string(
  "coordinator", None, "HOST:PORT of the first process."
)
_NUM_PROCESSES = flags.DEFINE_integer(
  "num_processes", None, "Number of processes."
)
_PROCESS_ID = flags.DEFINE_integer(
  "process_id", None, "Number of this process, from 0."
)


def main(argv: list[str]) -> None:
  """Hands the flags over; what a user can mend is said in one line."""
  command_line.start(argv)
  given = (_COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value)
  if not _DISTRIBUTED.value and any(value is not None for value in given):
    raise app.UsageError(
      "--coordinator, --num_processes and --process_id need --distributed."
    )
  if _DISTRIBUTED.value:
    jax.distributed.initialize(*given)
  # Imported late: the first use of a device must come after the line above.
  from inp_former_jax import protocols

  modes = {
    "train": protocols.train_and_evaluate,
    "eval": protocols.evaluate_checkpoint,
  }
  command_line.call(modes[_MODE.value], _CONFIG.value, _WORKDIR.value)


def run() -> None:
  """Parses the flags and calls `main`."""
  command_line.run(main)


if __name__ == "__main__":
  run()
