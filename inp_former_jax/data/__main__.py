"""Reports what is in a data set and what is wrong with it.

python -m inp_former_jax.data --layout=mvtec --root=FOLDER

It also says what training would make of the images: which of them are rotated
by EXIF or squashed, and which part of them is never inspected.

Exit code: 0 if all is well, 1 if there are problems, 2 if the folder does not
hold a data set of that layout.
"""

import argparse
import io
import os
import sys
import warnings

import rich.console

from inp_former_jax import arguments
from inp_former_jax.data.errors import DataError
from inp_former_jax.data.inspection.cautions import PAPER, find_cautions
from inp_former_jax.data.inspection.findings import inspect_dataset
from inp_former_jax.data.inspection.tables import print_inspection
from inp_former_jax.data.layouts.registry import LAYOUTS, read_layout
from inp_former_jax.data.layouts.tree import absolute
from inp_former_jax.data.transforms import Preprocessing
from inp_former_jax.field_names import with_field_names, with_flag_names
from inp_former_jax.terminal import escaped

# The sizes of configs/folder.py; the configs of the other layouts have the
# paper's.
WHOLE = Preprocessing(resize=(392, 392), crop=(392, 392))


def main(argv: list[str] | None = None) -> int:
  """Runs the command.

  Args:
    argv: Arguments of the command line; those of the process by default.

  Returns:
    The exit code: 0, 1 or 2, see the module.
  """
  args = _parse(argv)
  for stream in (sys.stdout, sys.stderr):
    if isinstance(stream, io.TextIOWrapper):
      # File names may hold any bytes.
      stream.reconfigure(errors="backslashreplace")
  # Broken EXIF does no harm, and Pillow warns of it only now and then.
  warnings.filterwarnings("ignore", "Corrupt EXIF")
  categories = tuple(filter(None, args.categories.split(",")))
  try:
    dataset = read_layout(args.layout, args.root, categories)
  except (DataError, OSError) as error:
    print(f"error: {escaped(_with_flags(str(error)))}", file=sys.stderr)
    return 2
  bar = arguments.progress_bar()
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
  if not console.is_terminal and "COLUMNS" not in os.environ:
    console.width = 100  # a file has room
  cautions = find_cautions(inspection, args.preprocessing)
  print_inspection(inspection, console, [_with_flags(c) for c in cautions])
  return 1 if inspection.problems else 0


def _parse(argv: list[str] | None) -> argparse.Namespace:
  """Parses the flags and adds the sizes as `preprocessing`."""
  parser = _parser()
  args = parser.parse_args(argv)
  default = PAPER
  if args.layout == "folder":  # the whole picture, whatever the size
    default, args.resize = WHOLE, args.resize or args.crop
  try:
    args.preprocessing = Preprocessing.from_sides(
      args.resize or default.resize[0],
      args.crop or default.crop[0],
      resize_width=args.resize_width or 0,
      crop_width=args.crop_width or 0,
    )
  except ValueError as error:
    parser.error(str(error))
  return args


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    prog=arguments.program("inp_former_jax.data"),
    description="Reports what is in a data set, what is wrong with it, and "
    "what training would make of its images.",
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
  for name, text in (
    ("resize", "height of the resized image (default: 448; folder: 392)"),
    ("crop", "height of the centre crop (default: 392)"),
    ("resize_width", "width of the resized image (default: its height)"),
    ("crop_width", "width of the centre crop (default: its height)"),
  ):
    parser.add_argument(
      f"--{name}", type=_positive, metavar="PIXELS", help=text
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
  """Replaces arguments in backticks by flags of this command or of training."""
  text = with_flag_names(text, ("layout", "root", "categories"))
  return with_field_names(text)


def _positive(text: str) -> int:
  number = int(text)
  if number < 1:
    raise argparse.ArgumentTypeError(f"{number} is not above 0")
  return number


if __name__ == "__main__":
  sys.exit(main())
