"""Parts shared by the commands that take a config and a workdir."""

import itertools
import pathlib
import re
import sys
from collections.abc import Callable, Sequence

from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

from inp_former_jax import config_files
from inp_former_jax.terminal import escaped

_REPORTED = (
  *(ValueError, OSError, RuntimeError, ArithmeticError, ImportError),
  config_files.ConfigError,
)
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
  try:
    names = ", ".join(config_files.config_names())
  except config_files.ConfigError as error:
    sys.exit(f"error: {escaped(error)}")
  config = config_flags.DEFINE_config_file(
    "config", None, f"{_CONFIG_HELP} The names are {names}."
  )
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
    sys.exit(f"error: {escaped(error)}\n(--verbosity=1 shows where.)")


def run(
  main: Callable[[list[str]], None],
  *,
  example: str = "folder",
) -> None:
  """Parses the flags and calls `main`.

  A config that is missing or cannot be loaded, and a field that does not exist,
  are reported in a line.

  Args:
    main: The function to call with the arguments that are not flags.
    example: The name of a config of this command, for the error.
  """

  def parse(argv: list[str]) -> list[str]:
    argv = _with_config(argv, example)
    return _parse_flags(argv)

  app.run(main, flags_parser=parse)


def _with_config(argv: list[str], example: str) -> list[str]:
  """Adds the config of the workdir where no other one is given."""
  given = flags.FLAGS.read_flags_from_files(argv[1:], force_gnu=False)
  if any(re.fullmatch(r"--?(help\w*|\?|h)(=.*)?", flag) for flag in given):
    return argv
  workdir = _value_of("workdir", given)
  required = "workdir" in flags.FLAGS and flags.FLAGS["workdir"].default is None
  if not workdir and required:
    sys.exit(
      "error: --workdir is missing: name a folder for the results, e.g. "
      "--workdir=workdir/parts. --help shows all flags."
    )
  if _value_of("config", given) is not None:
    return argv
  path = pathlib.Path(workdir or "").expanduser() / config_files.RECORDED
  if workdir and path.is_file():
    # Before all overrides of its fields.
    return [argv[0], f"--config={path}", *argv[1:]]
  where = ""
  if workdir:
    holds = f"holds no {config_files.RECORDED}"
    where = f" ({workdir} {holds if path.parent.is_dir() else 'is no folder'})"
  sys.exit(
    f"error: --config is missing{where}: name one of "
    f"{', '.join(config_files.config_names())}, e.g. --config={example}. "
    "--help shows all flags."
  )


def _value_of(flag: str, given: Sequence[str]) -> str | None:
  """Returns the last value of --flag=VALUE or --flag VALUE, if there is one."""
  value = None
  for argument, following in itertools.zip_longest(
    given, given[1:], fillvalue=""
  ):
    found = re.fullmatch(rf"--?{flag}(=(.*))?", argument, re.DOTALL)
    if found:
      value = found[2] if found[1] else following
  return value


def _parse_flags(argv: list[str]) -> list[str]:
  try:
    return app.parse_flags_with_usage(argv)
  except (config_files.ConfigError, AttributeError, KeyError) as error:
    if _value_of("verbosity", argv[1:]) not in (None, "0", "-1", "-2", "-3"):
      raise
    sys.exit(f"error: {escaped(_config_error(error))}")


def _config_error(error: Exception) -> str:
  """Puts what ml_collections raises for a field in a line."""
  if isinstance(error, config_files.ConfigError):
    return str(error)
  # An AttributeError may hold a KeyError.
  cause = error
  if error.args and isinstance(error.args[0], KeyError):
    cause = error.args[0]
  first, *rest = str(cause.args[0] if cause.args else "").splitlines() or [""]
  name = first.strip("'")
  if isinstance(cause, KeyError) and re.fullmatch(r"[\w.]+", name):
    return " ".join([f"the config has no field {name!r}.", *rest])
  return f"the config cannot be changed so: {first}"
