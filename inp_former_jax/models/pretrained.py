"""Command that finds, downloads and imports the weights of encoders.

python -m inp_former_jax.models.pretrained where NAME
python -m inp_former_jax.models.pretrained fetch NAME [--source original]
python -m inp_former_jax.models.pretrained import NAME FILE [--replace]
"""

import argparse
import pathlib
import sys

from inp_former_jax.field_names import with_field_names
from inp_former_jax.terminal import escaped
from inp_former_jax.weights import sources
from inp_former_jax.weights.pretrained import import_file


def _describe(name: str) -> str:
  """Describes where an encoder's weights come from, without fetching them."""
  file = sources.find_cached(name)
  if file is not None:
    return f"{file.path}\nsha256 {file.sha256}"
  addresses = sources.describe_sources(name)
  return f"not on this machine (nor in {sources.cache_folder()})\n" + "\n".join(
    f"{source}: {where}" for source, where in addresses.items()
  )


def _parse(arguments: list[str] | None) -> argparse.Namespace:
  parser = argparse.ArgumentParser(
    prog="python -m inp_former_jax.models.pretrained",
    description="Keeps files with encoders' weights under their names.",
  )
  commands = parser.add_subparsers(dest="command", required=True)
  where = commands.add_parser("where", help="say where weights come from")
  fetch = commands.add_parser("fetch", help="download weights")
  take = commands.add_parser("import", help="keep a file fetched by hand")
  for command in (where, fetch, take):
    command.add_argument("name", help="such as dinov2reg_vit_base_14")
  fetch.add_argument(
    "--source",
    choices=sources.SOURCES,
    default=sources.HUGGING_FACE,
  )
  take.add_argument("file", type=pathlib.Path)
  take.add_argument(
    "--replace", action="store_true", help="in place of what is there"
  )
  return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
  """Runs the command `where`, `fetch` or `import`.

  Args:
    arguments: Arguments of the command line; by default the process's.
  """
  args = _parse(arguments)
  try:
    if args.command == "where":
      print(_describe(args.name))
    elif args.command == "fetch":
      print(sources.fetch(args.name, args.source).path)
    else:
      print(import_file(args.name, args.file, replace=args.replace).path)
  except (ValueError, OSError, ImportError) as error:
    sys.exit(f"error: {escaped(with_field_names(str(error)))}")


if __name__ == "__main__":
  main()
