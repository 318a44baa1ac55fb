"""Converts official INP-Former checkpoints to this project and back.

python -m weights_conversion.inp_former to_flax model.pth WORKDIR
python -m weights_conversion.inp_former to_torch WORKDIR model.pth

The workdir can then be evaluated and trained further like any other.
"""

import argparse
import pathlib
import sys

from inp_former_jax.field_names import with_field_names
from inp_former_jax.terminal import escaped
from inp_former_jax.weights import files
from weights_conversion.official_checkpoints import to_flax, to_torch


def main(argv: list[str] | None = None) -> int:
  """Runs the command.

  Args:
    argv: Arguments of the command line; by default the process's.

  Returns:
    The exit code.
  """
  parser = argparse.ArgumentParser(
    prog="python -m weights_conversion.inp_former",
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  commands = parser.add_subparsers(dest="command", required=True)
  forth = commands.add_parser(
    "to_flax", help="converts an official file to a workdir"
  )
  forth.add_argument("source", type=pathlib.Path, help="the official file")
  forth.add_argument("workdir", type=pathlib.Path, help="the folder to write")
  back = commands.add_parser(
    "to_torch", help="converts a workdir to an official file"
  )
  back.add_argument("workdir", type=pathlib.Path, help="the folder of a run")
  back.add_argument(
    "target",
    type=pathlib.Path,
    help="the file to write: " + ", ".join(files.SUFFIXES),
  )
  back.add_argument(
    "--encoder",
    type=pathlib.Path,
    help="the encoder's file; looked for in the workdir, where the run read "
    "it, and on this machine by default",
  )
  args = parser.parse_args(argv)
  try:
    if args.command == "to_flax":
      found = to_flax(args.source, args.workdir)
      print(
        f"{args.workdir}: {found.name}, {found.num_prototypes} INPs. Use it "
        f"with --config=mvtec --workdir={args.workdir} "
        f"--config.model.encoder={found.name}, or another config."
      )
    else:
      step = to_torch(args.workdir, args.target, args.encoder)
      print(f"{args.target}: the checkpoint of step {step}")
  except (ValueError, OSError, ImportError, RuntimeError) as error:
    print(f"error: {escaped(with_field_names(str(error)))}", file=sys.stderr)
    return 1
  return 0


if __name__ == "__main__":
  sys.exit(main())
