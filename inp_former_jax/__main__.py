"""The command `inp-former`, whose sub-commands are the package's commands.

inp-former train --config=demo --workdir=workdir/demo
inp-former eval --workdir=workdir/demo

Each runs a module as `python -m inp_former_jax.main` does. Where the command is
not on the path, `python -m inp_former_jax` takes its place.
"""

import dataclasses
import difflib
import runpy
import sys
from collections.abc import Sequence

import inp_former_jax


@dataclasses.dataclass(frozen=True)
class SubCommand:
  """A command of the package under its short name.

  Attributes:
    module: The module that is run.
    summary: What the command does, for the list of all.
    flags: The flags that are put before the user's own.
  """

  module: str
  summary: str
  flags: tuple[str, ...] = ()


_MAIN = "inp_former_jax.main"
SUB_COMMANDS = {
  "train": SubCommand(
    _MAIN, "train a model, or resume a run, and evaluate it", ("--mode=train",)
  ),
  "eval": SubCommand(
    _MAIN, "evaluate the newest checkpoint of a workdir", ("--mode=eval",)
  ),
  "predict": SubCommand(
    "inp_former_jax.predict", "score images with a trained model"
  ),
  "calibrate": SubCommand(
    "inp_former_jax.calibrate", "set thresholds by normal images"
  ),
  "export": SubCommand(
    "inp_former_jax.export", "write a model that runs without this package"
  ),
  "data": SubCommand(
    "inp_former_jax.data", "check what is in a data set and what is wrong"
  ),
  "benchmark": SubCommand(
    "inp_former_jax.benchmark", "measure the speed of prediction and training"
  ),
}


def main(argv: Sequence[str] | None = None) -> int:
  """Runs a sub-command.

  Args:
    argv: The name of the sub-command and its arguments; by default those of
      the process.

  Returns:
    The exit code: 0, or 2 if no sub-command, or an unknown one, is named.
    A sub-command may exit with codes of its own.
  """
  given = sys.argv[1:] if argv is None else list(argv)
  name = given[0] if given else ""
  if name in ("--help", "-h", "help"):
    print(_help())
  elif name == "--version":
    print(f"inp-former-jax {inp_former_jax.__version__}")
  elif name in SUB_COMMANDS:
    _run(name, given[1:])
  elif not name:
    print(_help(), file=sys.stderr)
    return 2
  else:
    print(_unknown(name), file=sys.stderr)
    return 2
  return 0


def _run(name: str, given: Sequence[str]) -> None:
  """Runs the module of a sub-command as `python -m` does."""
  # Imported late, as it takes longer than to print the help.
  from inp_former_jax import arguments

  command = SUB_COMMANDS[name]
  names = {argument.partition("=")[0] for argument in given}
  if command.flags and names & {"--mode", "-mode"}:
    sys.exit(f"error: `inp-former {name}` takes no --mode; leave it out.")
  arguments.set_program(f"inp-former {name}")
  sys.argv = [sys.argv[0], *command.flags, *given]
  runpy.run_module(command.module, run_name="__main__", alter_sys=True)


def _help() -> str:
  lines = [
    "usage: inp-former COMMAND [ARGUMENTS]",
    "",
    "INP-Former in JAX: one model that finds defects on many products.",
    "",
    *(f"  {name:<11}{c.summary}" for name, c in SUB_COMMANDS.items()),
    "",
    "inp-former COMMAND --help shows the arguments of a command.",
    "inp-former --version shows the version.",
  ]
  return "\n".join(lines)


def _unknown(name: str) -> str:
  nearest = difflib.get_close_matches(name, SUB_COMMANDS, n=1)
  hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
  return (
    f"error: inp-former has no command {name!r}.{hint} The commands are "
    f"{', '.join(SUB_COMMANDS)}; --help says what they do."
  )


if __name__ == "__main__":
  sys.exit(main())
