"""Converts a DINOv2 encoder from another file.

python -m weights_conversion.dinov2 SRC OUT

SRC has the names of facebookresearch/dinov2 or of Hugging Face transformers,
OUT gets those of facebookresearch/dinov2 and every array of the encoder.
"""

import argparse
import pathlib
import sys

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
    source: `.npz`, `.safetensors`, `.pth` or `.pt`, of either naming.
    target: Its suffix decides the format.

  Returns:
    Sizes of the encoder.

  Raises:
    ValueError: The file cannot be read or is no encoder, or the target is
      the source or has no such suffix.
    OSError: A file does not exist or cannot be written.
    ImportError: A PyTorch file without PyTorch.
  """
  files.check_suffix(target)
  if target.exists() and target.samefile(source):
    raise ValueError(f"{target} is the file to read; name another to write.")
  arrays = facebookresearch_arrays(files.read_arrays(source), source)
  files.write_arrays(target, arrays)
  shapes = {name: value.shape for name, value in arrays.items()}
  return read_sizes(shapes, Naming.FACEBOOKRESEARCH)


def main(argv: list[str] | None = None) -> int:
  """Command line; returns the exit code."""
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
    print(f"error: {error}", file=sys.stderr)
    return 1
  print(
    f"{args.target}: {sizes}; names of facebookresearch/dinov2, float32, "
    f"{args.target.stat().st_size:,} bytes"
  )
  return 0


if __name__ == "__main__":
  sys.exit(main())
