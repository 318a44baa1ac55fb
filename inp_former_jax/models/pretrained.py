"""A named encoder -> its weights; and the command that keeps their files.

python -m inp_former_jax.models.pretrained where NAME
python -m inp_former_jax.models.pretrained fetch NAME [--source original]
python -m inp_former_jax.models.pretrained import NAME FILE [--replace]
"""

import argparse
import dataclasses
import pathlib
import sys

import jax
from flax import nnx

from inp_former_jax.models import encoder_sources, vit
from weights_conversion import dinov2, files, rules

RANDOM = "random"


@dataclasses.dataclass(frozen=True)
class EncoderWeights:
  """Weights of an encoder and where they come from.

  Attributes:
    state: nnx.State of numpy float32 arrays; None for random weights.
    sha256: Of the file, in hex; "random" for random weights.
  """

  state: nnx.State | None
  sha256: str


def load_encoder(
  name: str, weights: str, abstract_state: nnx.State
) -> EncoderWeights:
  """Loads an encoder's weights.

  Args:
    name: The encoder, such as `dinov2reg_vit_base_14`.
    weights: "" for the file of that name on this machine, or else from the
      Hugging Face Hub; "original" for the original PyTorch file; "random" for
      a random initialisation; or a file (.safetensors, .npz, .pth) with the
      names of facebookresearch/dinov2 or of the Hugging Face Hub.
    abstract_state: State of a `VisionTransformer` (shapes only).

  Returns:
    The weights and their checksum.

  Raises:
    FileNotFoundError: The file does not exist, or nobody has published one.
    DownloadError: The file is not on this machine and cannot be downloaded.
    ImportError: A PyTorch file without PyTorch.
    ValueError: The file has changed since it was downloaded, cannot be read,
      or holds another model.
  """
  if weights == RANDOM:
    return EncoderWeights(None, RANDOM)
  if weights in ("", encoder_sources.ORIGINAL):
    return _load_by_name(name, weights, abstract_state)
  path = pathlib.Path(weights).expanduser()
  if not path.is_file():
    raise FileNotFoundError(
      f"config.model.encoder_weights names {path}, which is not a file. It "
      'can be a file, "original", "random", or "" for the file of the '
      f"encoder {name} on this machine or the Hugging Face Hub."
    )
  state = _read_state(path, abstract_state)
  return EncoderWeights(state, files.file_sha256(path))


def _load_by_name(
  name: str, source: str, abstract_state: nnx.State
) -> EncoderWeights:
  if source:
    file = encoder_sources.fetch(name, source)
  else:
    file = encoder_sources.find_or_fetch(name)
  try:
    state = _read_state(file.path, abstract_state)
  except ValueError as error:
    raise ValueError(
      f"{error}\n{file.path} is kept as the encoder {name}: delete it to have "
      "it fetched again."
    ) from error
  return EncoderWeights(state, file.sha256)


def _read_state(path: pathlib.Path, abstract_state: nnx.State) -> nnx.State:
  arrays = files.read_arrays(path)
  table = dinov2.rules_for(arrays, len(abstract_state["blocks"]), path)
  return rules.convert_state(arrays, table, abstract_state, path)


def import_file(
  name: str, path: pathlib.Path, *, replace: bool = False
) -> encoder_sources.EncoderFile:
  """Keeps a file that was fetched by hand as the weights of an encoder.

  Args:
    name: The encoder, such as `dinov2reg_vit_base_14`.
    path: The file; it is copied.
    replace: Whether it takes the place of files that are there.

  Returns:
    The copy.

  Raises:
    FileNotFoundError: There is no such file.
    FileExistsError: Weights of this encoder are there already.
    ValueError: The file cannot be read, or holds another model; or the
      encoder is bundled with this package.
  """
  if encoder_sources.bundled(name):
    raise ValueError(
      f"The encoder {name} comes with this package; another file can be "
      "passed by --config.model.encoder_weights=FILE with the name of its "
      "size, e.g. dinov2_vit_tiny_14."
    )
  if not path.is_file():
    raise FileNotFoundError(f"{path} is not a file; nothing was imported.")
  variant, num_registers = vit.parse_encoder_name(name)
  model = nnx.eval_shape(
    lambda: vit.VisionTransformer(variant, num_registers, rngs=nnx.Rngs(0))
  )
  _read_state(path, nnx.state(model))
  return encoder_sources.import_into_cache(name, path, replace=replace)


def place(state: nnx.State, shardings) -> nnx.State:
  """Host arrays, the same on every process, -> global arrays."""

  def put(value, sharding):
    return jax.make_array_from_callback(
      value.shape, sharding, lambda index: value[index]
    )

  return jax.tree.map(put, state, shardings)


def _describe(name: str) -> str:
  """Where an encoder's weights come from, without fetching them."""
  file = encoder_sources.find_cached(name)
  if file is not None:
    return f"{file.path}\nsha256 {file.sha256}"
  sources = encoder_sources.describe_sources(name)
  return (
    f"not on this machine (nor in {encoder_sources.cache_folder()})\n"
    f"default:  {sources[encoder_sources.HUGGING_FACE]}\n"
    f"original: {sources[encoder_sources.ORIGINAL]}"
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
    choices=encoder_sources.SOURCES,
    default=encoder_sources.HUGGING_FACE,
  )
  take.add_argument("file", type=pathlib.Path)
  take.add_argument(
    "--replace", action="store_true", help="in place of what is there"
  )
  return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
  """The command `where`, `fetch` or `import`.

  Args:
    arguments: Of the command line; those of the process by default.
  """
  args = _parse(arguments)
  try:
    if args.command == "where":
      print(_describe(args.name))
    elif args.command == "fetch":
      print(encoder_sources.fetch(args.name, args.source).path)
    else:
      print(import_file(args.name, args.file, replace=args.replace).path)
  except (ValueError, OSError, ImportError) as error:
    sys.exit(f"error: {error}")


if __name__ == "__main__":
  main()
