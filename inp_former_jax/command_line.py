"""What the commands with a config and a workdir share."""

import sys
from collections.abc import Callable

from absl import app, flags, logging
from ml_collections import config_flags

_MENDABLE = (ValueError, OSError, RuntimeError, ArithmeticError, ImportError)


def define_flags(workdir_help: str) -> tuple[flags.FlagHolder, ...]:
  """Defines --config and --workdir, both required.

  Args:
    workdir_help: What the workdir is for.

  Returns:
    The holders of config and workdir.
  """
  config = config_flags.DEFINE_config_file(
    "config", None, "Config file; --config.FIELD=VALUE overrides a field."
  )
  workdir = flags.DEFINE_string("workdir", None, workdir_help)
  flags.mark_flags_as_required(["config", "workdir"])
  return config, workdir


def start(argv: list[str]) -> None:
  """Refuses arguments that are no flags, and silences the libraries.

  Args:
    argv: As `app.run` hands it to main.
  """
  if len(argv) > 1:
    raise app.UsageError(f"Unknown arguments: {' '.join(argv[1:])}")
  if not flags.FLAGS["verbosity"].present:
    logging.set_verbosity(logging.WARNING)  # orbax tells much at INFO


def call(function: Callable, *arguments) -> None:
  """Calls a function; what a user can mend is said in one line.

  Args:
    function: Does the work.
    *arguments: For it.
  """
  try:
    function(*arguments)
  except _MENDABLE as error:
    if flags.FLAGS.verbosity > 0:
      raise
    sys.exit(f"error: {error}\n(--verbosity=1 shows where.)")


def run(main: Callable[[list[str]], None]) -> None:
  """Parses the flags and calls `main`; unknown fields are said in a line.

  Args:
    main: Takes the arguments that are left.
  """
  app.run(main, flags_parser=_parse_flags)


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
