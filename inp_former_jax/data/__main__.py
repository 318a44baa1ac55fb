"""Reports what is in a data set and what is wrong with it.

python -m inp_former_jax.data --layout=mvtec --root=FOLDER

Exit code: 0 if all is well, 1 if there are problems, 2 if the folder does not
hold a data set of that layout.
"""

import argparse
import io
import re
import sys

import rich.console
import rich.progress

from inp_former_jax.data.errors import DataError
from inp_former_jax.data.inspection.findings import inspect_dataset
from inp_former_jax.data.inspection.tables import print_inspection
from inp_former_jax.data.layouts.registry import LAYOUTS, read_layout
from inp_former_jax.data.layouts.tree import absolute


def main(argv: list[str] | None = None) -> int:
  """Runs the command.

  Args:
    argv: Arguments of the command line; those of the process by default.

  Returns:
    The exit code: 0, 1 or 2, see the module.
  """
  args = _parser().parse_args(argv)
  for stream in (sys.stdout, sys.stderr):
    if isinstance(stream, io.TextIOWrapper):
      stream.reconfigure(
        errors="backslashreplace"
      )  # file names may hold any bytes
  categories = tuple(filter(None, args.categories.split(",")))
  try:
    dataset = read_layout(args.layout, args.root, categories)
  except (DataError, OSError) as error:
    print(f"error: {_with_flags(str(error))}", file=sys.stderr)
    return 2
  bar = _progress_bar()
  with bar:
    inspection = inspect_dataset(
      dataset,
      absolute(args.root),
      whole=not categories,
      quick=args.quick,
      threads=args.threads,
      track=lambda results, total, description: bar.track(
        results, total=total, description=description
      ),
    )
  console = rich.console.Console()
  if not console.is_terminal:
    console.width = max(console.width, 100)  # a log file has room
  print_inspection(inspection, console)
  return 1 if inspection.problems else 0


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    prog="python -m inp_former_jax.data",
    description="Tells what is in a data set and what is wrong with it.",
    epilog="Exit code: 0 if all is well, 1 if there are problems, 2 if the "
    "folder does not hold a data set of that layout.",
  )
  parser.add_argument(
    "--layout",
    required=True,
    # The demo is drawn on demand: it has no folder to inspect.
    choices=sorted(LAYOUTS),
    help="how the folder is laid out",
  )
  parser.add_argument("--root", required=True, help="folder of the data set")
  parser.add_argument(
    "--categories", default="", help="A,B: these only (default: all)"
  )
  parser.add_argument(
    "--quick",
    action="store_true",
    help="read headers only: no pixels, and no search for duplicates",
  )
  parser.add_argument(
    "--threads",
    type=_positive,
    default=16,
    help="files that are read at a time (default: %(default)s)",
  )
  return parser


def _with_flags(text: str) -> str:
  """Names arguments in backticks as the flags by which they are set here."""
  return re.sub("`(layout|root|categories)`", r"--\1", text)


def _positive(text: str) -> int:
  number = int(text)
  if number < 1:
    raise argparse.ArgumentTypeError(f"{number} is not above 0")
  return number


def _progress_bar() -> rich.progress.Progress:
  # On stderr, because the tables go to stdout.
  console = rich.console.Console(stderr=True)
  return rich.progress.Progress(
    rich.progress.TextColumn("{task.description}"),
    rich.progress.BarColumn(20),
    rich.progress.MofNCompleteColumn(),
    rich.progress.TimeRemainingColumn(compact=True),
    console=console,
    transient=True,
    disable=not console.is_terminal,
  )


if __name__ == "__main__":
  sys.exit(main())
