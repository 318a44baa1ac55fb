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

_MENDABLE = (ValueError, OSError, RuntimeError, ArithmeticError, ImportError)


def main(argv: list[str]) -> None:
  """Hands the flags over; what a user can mend is said in one line."""
  if len(argv) > 1:
    raise app.UsageError(f"Unknown arguments: {' '.join(argv[1:])}")
  if not flags.FLAGS["verbosity"].present:
    logging.set_verbosity(logging.WARNING)  # orbax tells much at INFO
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
  try:
    modes[_MODE.value](_CONFIG.value, _WORKDIR.value)
  except _MENDABLE as error:
    if flags.FLAGS.verbosity > 0:
      raise
    sys.exit(f"error: {error}\n(--verbosity=1 shows where.)")


def _parse_flags(argv: list[str]) -> list[str]:
  try:
    return app.parse_flags_with_usage(argv)
  except AttributeError as error:
    # ml_collections' error is a KeyError's repr inside an AttributeError.
    cause = error.args[0]
    if not isinstance(cause, KeyError):
      raise
    lines = str(cause.args[0]).splitlines()
    sys.exit(
      f"error: the config has no field {lines[0]}. " + " ".join(lines[1:])
    )


def run() -> None:
  """Parses the flags and calls `main`."""
  app.run(main, flags_parser=_parse_flags)


if __name__ == "__main__":
  run()
