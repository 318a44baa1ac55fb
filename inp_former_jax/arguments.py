"""Parts shared by the commands that answer for images: flags and errors."""

import argparse
import io
import os
import sys
import warnings
from collections.abc import Callable, Collection, Sequence
from typing import Any

import rich.console
import rich.progress

from inp_former_jax.field_names import with_flag_names
from inp_former_jax.terminal import escaped

FAILED = 2  # the exit code of a command that could not do its work
PREDICTOR_FLAGS = (
  *("batch_size", "device", "tile", "keep_aspect", "ignore", "zero_shot"),
  *("resize", "crop", "dtype", "use"),
)
_REPORTED = (ValueError, OSError, RuntimeError, ArithmeticError, ImportError)


_program = ""  # how the command was called, if not by `python -m`


def set_program(name: str) -> None:
  """Sets how the command that runs was called.

  Args:
    name: What the user has typed, e.g. "inp-former data".
  """
  global _program
  _program = name


def program(module: str) -> str:
  """Returns how the command that runs is called, for its usage line.

  Args:
    module: The module of the command, e.g. "inp_former_jax.data".

  Returns:
    The name of the sub-command of `inp-former`, if it was called so, or else
    "python -m" and the module.
  """
  return _program or f"python -m {module}"


class Parser(argparse.ArgumentParser):
  """A parser that takes flags with dashes as well as with underscores."""

  def __init__(self, module: str, description: str):
    """Creates a parser.

    Args:
      module: The module of the command, e.g. "inp_former_jax.predict".
      description: The docstring of the command, which --help shows as it is.
    """
    super().__init__(
      prog=program(module),
      description=description,
      formatter_class=argparse.RawDescriptionHelpFormatter,
    )

  def parse_known_args(self, args=None, namespace=None):
    """Parses the arguments, see `argparse.ArgumentParser`."""
    given = sys.argv[1:] if args is None else args
    return super().parse_known_args([*_underscored(given)], namespace)


def _underscored(args: Sequence[str]):
  flags = True
  for argument in args:
    flags = flags and argument != "--"
    name, equals, value = argument.partition("=")
    if flags and name.startswith("--"):
      name = "--" + name[2:].replace("-", "_")
    yield name + equals + value


def add_predictor_flags(parser: argparse.ArgumentParser) -> None:
  """Adds the flags that decide how images are inspected.

  Args:
    parser: The parser of a command.
  """
  add = parser.add_argument_group("how images are inspected").add_argument
  add("--batch_size", type=int, default=16, help="images at once; default: 16")
  add("--device", help="cpu, gpu or tpu; default: what JAX finds")
  add(
    "--tile",
    type=_tile,
    metavar="HEIGHT,WIDTH,OVERLAP",
    help="inspect large images in tiles of so many pixels",
  )
  add(
    "--keep_aspect",
    action="store_true",
    help="resize images without changing their aspect ratio",
  )
  add(
    "--ignore",
    metavar="FILE",
    help="regions that never count: a mask (white is ignored), or a JSON file "
    "of polygons",
  )
  add(
    "--zero_shot",
    action="store_true",
    help="score by the distance to the image's own INPs, for products that the "
    "model was not trained on",
  )
  add("--resize", type=int, help="for a converted checkpoint: pixels")
  add("--crop", type=int, help="for a converted checkpoint: pixels")
  add("--dtype", help="float32 or bfloat16; default: that of the run")
  add(
    "--use", default="newest", help="which checkpoint, newest (default) or best"
  )


def predictor_arguments(args: argparse.Namespace) -> dict[str, Any]:
  """Returns the arguments of `Predictor.load` that the flags give.

  Args:
    args: What a parser with these flags has parsed.
  """
  return {name: getattr(args, name) for name in PREDICTOR_FLAGS}


def _tile(text: str) -> tuple[int, int, int]:
  height, width, overlap = (int(number) for number in text.split(","))
  return height, width, overlap


def run(command: Callable[[], int], flags: Collection[str] = ()) -> int:
  """Runs a command; an error that the user can fix is reported in a line.

  Args:
    command: The function that does the work and returns the exit code.
    flags: Further arguments of the library that the command has flags for.

  Returns:
    The exit code, FAILED after an error.
  """
  for stream in (sys.stdout, sys.stderr):
    if isinstance(stream, io.TextIOWrapper):
      # File names may hold any bytes.
      stream.reconfigure(errors="backslashreplace")
  # Broken EXIF does no harm, and Pillow warns of it only now and then.
  warnings.filterwarnings("ignore", "Corrupt EXIF")
  try:
    return command()
  except BrokenPipeError:
    # The reader of a pipe, such as `head`, has seen enough.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return FAILED
  except _REPORTED as error:
    text = with_flag_names(str(error), (*PREDICTOR_FLAGS, *flags))
    print(f"error: {escaped(text)}", file=sys.stderr)
    return FAILED


def progress_bar() -> rich.progress.Progress:
  """Returns a bar on stderr, as results go to stdout; none without a screen."""
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
