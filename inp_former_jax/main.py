"""Command line: python -m inp_former_jax.main --config=FILE --workdir=DIR."""

import sys

import jax
from absl import app, flags, logging
from ml_collections import config_flags

_CONFIG = config_flags.DEFINE_config_file(
  "config", None, "Config file; --config.FIELD=VALUE overrides a field."
)
_WORKDIR = flags.DEFINE_string(
  "workdir", None, "Folder for checkpoints, logs and results."
)
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
flags.mark_flags_as_required(["config", "workdir"])


def main(argv: list[str]) -> None:
  """Hands the flags over; what a user can mend is said in one line."""
  if len(argv) > 1:
    raise app.UsageError(f"Unknown arguments: {' '.join(argv[1:])}")
  if not flags.FLAGS["verbosity"].present:
    logging.set_verbosity(logging.WARNING)  # orbax tells much at INFO
  if _DISTRIBUTED.value:
    jax.distributed.initialize(
      _COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value
    )
  # Imported late: the first use of a device must come after the line above.
  from inp_former_jax import evaluate, train

  modes = {
    "train": train.train_and_evaluate,
    "eval": evaluate.evaluate_checkpoint,
  }
  try:
    modes[_MODE.value](_CONFIG.value, _WORKDIR.value)
  except (ValueError, OSError, RuntimeError, ArithmeticError) as error:
    if flags.FLAGS.verbosity > 0:
      raise
    sys.exit(f"error: {error}\n(--verbosity=1 shows where.)")


def _parse_flags(argv: list[str]) -> list[str]:
  try:
    return app.parse_flags_with_usage(argv)
  except AttributeError as error:  # a field that the config does not have
    sys.exit(f"error: config has no field {str(error.args[0]).strip()}")


def run() -> None:
  """Parses the flags and calls `main`."""
  app.run(main, flags_parser=_parse_flags)


if __name__ == "__main__":
  run()
