"""Converts the file of a DINOv2 encoder to facebookresearch/dinov2 names.

python -m weights_conversion.dinov2 SRC OUT

SRC has the names of facebookresearch/dinov2 or of Hugging Face transformers.
OUT gets every array of the encoder, with the names of facebookresearch/dinov2.
"""

import argparse
import pathlib
import sys

from inp_former_jax.field_names import with_field_names
from inp_former_jax.terminal import escaped
from inp_former_jax.weights import files
from inp_former_jax.weights.dinov2_names import (
  EncoderSizes,
  Naming,
  read_sizes,
)
from inp_former_jax.weights.dinov2_rules import facebookresearch_arrays


def convert_file(source: pathlib.Path, target: pathlib.Path) -> EncoderSizes:
  """Rewrites an encoder's file with facebookresearch/dinov2 names.

  Args:
    source: The file to read, `.npz`, `.safetensors`, `.pth` or `.pt`, in
      either naming scheme.
    target: The file to write, whose suffix decides the format.

  Returns:
    The sizes of the encoder.

  Raises:
    ValueError: If the source cannot be read or holds no encoder, or if the
      target is the source or has an unknown suffix.
    OSError: If the source does not exist or the target cannot be written.
    ImportError: If a file is of PyTorch and PyTorch is not installed.
  """
  files.check_suffix(target)
  if target.exists() and target.samefile(source):
    raise ValueError(
      f"{target} is the file to read. Name another file to write to."
    )
  arrays = facebookresearch_arrays(files.read_arrays(source), source)
  files.write_arrays(target, arrays)
  shapes = {name: value.shape for name, value in arrays.items()}
  return read_sizes(shapes, Naming.FACEBOOKRESEARCH)


def main(argv: list[str] | None = None) -> int:
  """Runs the command.

  Args:
    argv: Arguments of the command line; by default the process's.

  Returns:
    The exit code.
  """
  parser = argparse.ArgumentParser(
    prog="python -m weights_conversion.dinov2",
    description="Converts a DINOv2 encoder to facebookresearch/dinov2 names.",
  )
  formats = ", ".join(files.SUFFIXES)
  parser.add_argument("source", metavar="SRC", type=pathlib.Path, help=formats)
  parser.add_argument("target", metavar="OUT", type=pathlib.Path, help=formats)
  args = parser.parse_args(argv)
  try:
    sizes = convert_file(args.source, args.target)
  except (ValueError, OSError, ImportError) as error:
    print(f"error: {escaped(with_field_names(str(error)))}", file=sys.stderr)
    return 1
  print(
    f"{args.target}: {sizes}; names of facebookresearch/dinov2, float32, "
    f"{args.target.stat().st_size:,} bytes"
  )
  return 0


if __name__ == "__main__":
  sys.exit(main())
