"""Command that writes a data set of any layout as a TFDS data set.

python -m inp_former_jax.data.tfds_builder --layout=mvtec --root=FOLDER \
    --data_dir=FOLDER [--name=NAME] [--categories=a,b]
"""

import argparse
import shlex
import sys

from inp_former_jax.data.layouts.registry import LAYOUTS, read_layout
from inp_former_jax.data.tfds.builder import BuiltDataset, build_tfds
from inp_former_jax.data.tfds.source import COMMAND
from inp_former_jax.field_names import with_flag_names
from inp_former_jax.terminal import escaped


def _parse(arguments: list[str] | None) -> argparse.Namespace:
  parser = argparse.ArgumentParser(
    prog=COMMAND,
    description="Writes a data set as a TFDS data set (array_record files).",
  )
  parser.add_argument("--layout", required=True, choices=LAYOUTS)
  parser.add_argument("--root", required=True, help="folder of the data set")
  parser.add_argument("--data_dir", required=True, help="folder to write to")
  parser.add_argument("--name", default="", help="default: the data set's own")
  parser.add_argument("--categories", default="", help="a,b; default: all")
  return parser.parse_args(arguments)


def _report(built: BuiltDataset) -> str:
  """Describes what was written and how to use it."""
  lines = [
    f"Wrote {built.folder}:"
    if built.is_new
    else f"{built.folder} was there already, with the same records of files of "
    "the same sizes, and was left as it is:"
  ]
  for split, count in built.records.items():
    num_bytes = built.num_bytes[split]
    lines.append(f"  {split:<10} {count:>9,} records {num_bytes:>17,} bytes")
  data_dir = shlex.quote(str(built.folder.parent.parent))
  lines.append(
    "Use it by "
    f"--config.data.tfds={built.name} --config.data.tfds_dir={data_dir}"
  )
  return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
  """Builds a TFDS data set and prints how to use it.

  Args:
    arguments: The command-line arguments; those of the process by default.
  """
  args = _parse(arguments)
  names = tuple(filter(None, args.categories.split(",")))
  try:
    dataset = read_layout(args.layout, args.root, names)
    built = build_tfds(dataset, args.root, args.data_dir, args.name)
  except (ValueError, OSError, RuntimeError, ImportError) as error:
    text = with_flag_names(str(error), ("layout", "root", "categories"))
    sys.exit(f"error: {escaped(' '.join(text.split()))}")
  print(escaped(_report(built)))


if __name__ == "__main__":
  main()
