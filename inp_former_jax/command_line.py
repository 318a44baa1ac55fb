"""Parts shared by the commands that take a config and a workdir."""

import pathlib
import re
import sys
from collections.abc import Callable, Sequence

from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

from inp_former_jax import config_files

_REPORTED = (ValueError, OSError, RuntimeError, ArithmeticError, ImportError)
_CONFIG_HELP = """Name of a config, e.g. --config=mvtec or \
--config=mvtec:few_shot,shots=2, or the path of a file, e.g. \
--config=configs/mvtec.py. --config.FIELD=VALUE after it overrides a field, \
e.g. --config.data.root=/data/mvtec. Not needed where the workdir holds a \
config.json: its run is continued, or evaluated."""


class _ConfigParser(flags.ArgumentParser):
  """Parser of --config that also accepts names and reports errors briefly."""

  def parse(self, argument: str) -> ConfigDict:
    """Loads the config that the flag names."""
    # Not a ValueError: absl would print a traceback of it.
    return config_files.load_config(argument)


def define_config() -> flags.FlagHolder:
  """Defines --config and the overrides of its fields.

  Returns:
    The holder of the config.
  """
  config = config_flags.DEFINE_config_file("config", None, _CONFIG_HELP)
  flags.FLAGS["config"].parser = _ConfigParser()
  return config


def define_flags(workdir_help: str) -> tuple[flags.FlagHolder, ...]:
  """Defines --config and --workdir.

  Both are required, except that a workdir with a `config.json` needs no config.

  Args:
    workdir_help: Help text of --workdir.

  Returns:
    The holders of the config and of the workdir.
  """
  config = define_config()
  workdir = flags.DEFINE_string("workdir", None, workdir_help)
  return config, workdir


def start(argv: Sequence[str]) -> None:
  """Refuses arguments that are not flags, and silences the libraries.

  Args:
    argv: The arguments that `app.run` passes to main.
  """
  if len(argv) > 1:
    raise app.UsageError(f"Unknown arguments: {' '.join(argv[1:])}")
  if not flags.FLAGS["verbosity"].present:
    logging.set_verbosity(logging.WARNING)  # orbax logs much at INFO


def call(function: Callable, *arguments) -> None:
  """Calls a function; an error that the user can fix is reported in a line.

  Args:
    function: The function that does the work.
    *arguments: The arguments of `function`.
  """
  try:
    function(*arguments)
  except _REPORTED as error:
    if flags.FLAGS.verbosity > 0:
      raise
    sys.exit(f"error: {error}\n(--verbosity=1 shows where.)")


def run(main: Callable[[list[str]], None]) -> None:
  """Parses the flags and calls `main`.

  A config that cannot be loaded and a field that does not exist are reported
  in a line.

  Args:
    main: The function to call with the arguments that are not flags.
  """
  app.run(main, flags_parser=_parse_flags)


def _parse_flags(argv: list[str]) -> list[str]:
  argv = _with_recorded_config(argv)
  try:
    rest = app.parse_flags_with_usage(argv)
  except config_files.ConfigError as error:
    sys.exit(f"error: {error}")
  except AttributeError as error:
    # ml_collections' error is a KeyError's repr inside an AttributeError.
    cause = error.args[0]
    if not isinstance(cause, KeyError):
      raise
    lines = str(cause.args[0]).splitlines()
    sys.exit(
      f"error: the config has no field {lines[0]}. " + " ".join(lines[1:])
    )
  _require_flags()
  return rest


def _with_recorded_config(argv: list[str]) -> list[str]:
  """Adds the config that the workdir holds, if no other one is given."""
  if _value_of("config", argv) is not None:
    return argv
  workdir = _value_of("workdir", argv)
  path = pathlib.Path(workdir or "").expanduser() / config_files.RECORDED
  if not workdir or not path.is_file():
    return argv
  # Before all overrides of its fields.
  return [argv[0], f"--config={path}", *argv[1:]]


def _value_of(flag: str, argv: Sequence[str]) -> str | None:
  """Returns the value of --flag=VALUE or --flag VALUE; None if not given."""
  for argument, following in zip(argv[1:], [*argv[2:], ""], strict=True):
    found = re.fullmatch(rf"--?{flag}(=(.*))?", argument, re.DOTALL)
    if found:
      return found[2] if found[1] else following
  return None


def _require_flags() -> None:
  defined = flags.FLAGS
  if "workdir" in defined and defined["workdir"].default is None:
    if not defined["workdir"].value:
      sys.exit(
        "error: --workdir is missing: name a folder for the results, e.g. "
        "--workdir=workdir/parts. --help shows all flags."
      )
  if defined["config"].value is None:
    given = defined["workdir"].value if "workdir" in defined else None
    where = f" ({given} holds no {config_files.RECORDED})" if given else ""
    sys.exit(
      f"error: --config is missing{where}: name one of "
      f"{', '.join(config_files.config_names())}, e.g. --config=folder. "
      "--help shows all flags."
    )
