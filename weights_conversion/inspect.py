"""Describes a file of weights, without loading its values.

python -m weights_conversion.inspect FILE
"""

import argparse
import collections
import dataclasses
import pathlib
import re
import sys
from collections.abc import Mapping

from inp_former_jax.field_names import with_field_names
from inp_former_jax.terminal import escaped, shortened
from inp_former_jax.weights import files
from inp_former_jax.weights.dinov2_names import (
  EncoderSizes,
  Naming,
  read_naming,
  read_sizes,
)
from inp_former_jax.weights.headers import Header, read_headers
from inp_former_jax.weights.quantisation import SCALE_SUFFIX

_FORMATS = {
  ".npz": "NumPy archive",
  ".safetensors": "safetensors",
  ".pth": "PyTorch",
  ".pt": "PyTorch",
}
_UNKNOWN = "unknown"
_INP_FORMER = "official INP-Former checkpoint"
_PROTOTYPES = re.compile(r"prototype_token(\.0)?")


@dataclasses.dataclass(frozen=True)
class Description:
  """The findings about a file of weights.

  Attributes:
    format: Format of the file.
    kind: Kind of the model.
    encoder: Sizes of the model's encoder; None if the kind is unknown.
    num_prototypes: Number of INPs; None unless the model is an INP-Former.
    num_parameters: Number of values in all arrays.
    dtypes: Number of arrays by type of their values.
    keys: Names of the arrays.
    num_bytes: Size of the file in bytes.
    sha256: Checksum of the file, in hex.
  """

  format: str
  kind: str
  encoder: EncoderSizes | None
  num_prototypes: int | None
  num_parameters: int
  dtypes: Mapping[str, int]
  keys: tuple[str, ...]
  num_bytes: int
  sha256: str

  def lines(self) -> dict[str, str]:
    """Returns the lines to print, as texts by their labels."""
    lines = {"format": self.format, "kind": self.kind}
    if self.encoder is None:
      lines["arrays"] = shortened(self.keys, 5)
    else:
      encoder = self.encoder
      name = encoder.name or "of another size than the published ones"
      sizes = f"width {encoder.width}, {encoder.depth} blocks"
      lines["encoder"] = f"{name} ({sizes})"
      lines["registers"] = str(encoder.num_registers)
    if self.num_prototypes is not None:
      lines["prototypes"] = str(self.num_prototypes)
    arrays = f"{len(self.keys)} array{'' if len(self.keys) == 1 else 's'}"
    lines["parameters"] = f"{self.num_parameters:,} in {arrays}"
    lines["dtypes"] = ", ".join(
      f"{dtype} ({count})" for dtype, count in self.dtypes.items()
    )
    lines["size"] = f"{self.num_bytes:,} bytes"
    lines["sha256"] = self.sha256
    return lines


def describe(path: pathlib.Path) -> Description:
  """Describes a file of weights.

  Args:
    path: The file: `.npz`, `.safetensors`, or `.pth` / `.pt` (which need the
      `convert` extra). Only its headers are parsed; the checksum reads it
      through once.

  Returns:
    The description. The names of the arrays decide the kind of the model;
    whether all arrays are present and have the right shapes is not checked.

  Raises:
    ValueError: If the file cannot be parsed.
    OSError: If the file does not exist or may not be read.
    ImportError: If it is a PyTorch file and PyTorch is not installed.
  """
  headers = read_headers(path)
  weights = {k: h for k, h in headers.items() if not k.endswith(SCALE_SUFFIX)}
  shapes = {key: header.shape for key, header in weights.items()}
  kind, encoder, num_prototypes = _kind(shapes)
  return Description(
    format=_FORMATS[files.check_suffix(path)],
    kind=kind,
    encoder=encoder,
    num_prototypes=num_prototypes,
    num_parameters=sum(header.size for header in weights.values()),
    dtypes=_count_dtypes(headers),
    keys=tuple(headers),
    num_bytes=path.stat().st_size,
    sha256=files.file_sha256(path),
  )


def _count_dtypes(headers: Mapping[str, Header]) -> dict[str, int]:
  return dict(collections.Counter(header.dtype for header in headers.values()))


def _kind(
  shapes: Mapping[str, tuple[int, ...]],
) -> tuple[str, EncoderSizes | None, int | None]:
  """Returns kind of model, sizes of its encoder and number of prototypes."""
  prototypes = [s for key, s in shapes.items() if _PROTOTYPES.fullmatch(key)]
  inner = {
    key.removeprefix("encoder."): shape
    for key, shape in shapes.items()
    if key.startswith("encoder.")
  }
  if prototypes and len(prototypes[0]) > 1 and "cls_token" in inner:
    sizes = read_sizes(inner, Naming.FACEBOOKRESEARCH)
    return _INP_FORMER, sizes, prototypes[0][-2]
  try:
    naming = read_naming(shapes)
  except ValueError:
    return _UNKNOWN, None, None
  return (
    f"DINOv2 encoder with {naming.value} names",
    read_sizes(shapes, naming),
    None,
  )


def main(argv: list[str] | None = None) -> int:
  """Runs the command.

  Args:
    argv: Arguments of the command line; by default the process's.

  Returns:
    The exit code.
  """
  parser = argparse.ArgumentParser(
    prog="python -m weights_conversion.inspect",
    description="Tells what a file of weights is, without loading its values.",
  )
  parser.add_argument("file", type=pathlib.Path, help=", ".join(files.SUFFIXES))
  args = parser.parse_args(argv)
  try:
    lines = describe(args.file).lines()
  except (ValueError, OSError, ImportError) as error:
    print(f"error: {escaped(with_field_names(str(error)))}", file=sys.stderr)
    return 1
  print(escaped(args.file))
  for label, text in lines.items():
    print(escaped(f"  {label:<11} {text}"))
  return 0


if __name__ == "__main__":
  sys.exit(main())
