"""Loads an encoder's weights, by its name or from a file, for a mesh."""

import dataclasses
import functools
import pathlib

import jax
import jax.numpy as jnp
from flax import nnx

from inp_former_jax.models import vit
from inp_former_jax.weights import dinov2_rules, files, rules, sources
from inp_former_jax.weights.encoders import get_encoder

RANDOM = "random"


@dataclasses.dataclass(frozen=True)
class EncoderWeights:
  """Weights of an encoder, with their checksum.

  Attributes:
    state: State of the encoder, of numpy float32 arrays; None for random
      weights.
    sha256: Checksum of the weights' file, in hex; "random" for random weights.
  """

  state: nnx.State | None
  sha256: str


def load_encoder(
  encoder: str,
  encoder_weights: str = "",
  *,
  dtype: jax.typing.DTypeLike = jnp.float32,
) -> vit.VisionTransformer:
  """Loads a pretrained encoder, ready to use.

  Args:
    encoder: The encoder's name, such as `dinov2reg_vit_base_14`; `ENCODERS`
      lists them all.
    encoder_weights: Source of the weights, see `load_weights`; by default the
      file of that name, from this machine or the Hugging Face Hub.
    dtype: The compute dtype; parameters are float32.

  Returns:
    The encoder, a Flax NNX module on the default device. Its
    `target_features(images)` are the eight outputs that INP-Former reads, of
    images (B, H, W, 3) that `normalise` returned.

  Raises:
    FileNotFoundError, ImportError, ValueError: If the weights cannot be found
      or read, or the encoder is unknown; see `load_weights`.
  """
  return load_with_checksum(encoder, encoder_weights, dtype=dtype)[0]


def load_with_checksum(
  encoder: str,
  encoder_weights: str = "",
  *,
  dtype: jax.typing.DTypeLike = jnp.float32,
) -> tuple[vit.VisionTransformer, str]:
  """Loads a pretrained encoder as `load_encoder` does.

  Args:
    encoder: The encoder's name.
    encoder_weights: Source of the weights.
    dtype: The compute dtype.

  Returns:
    The encoder, and the checksum of its file in hex, or "random".

  Raises:
    FileNotFoundError, ImportError, ValueError: As `load_encoder` raises them.
  """
  build = functools.partial(_build, encoder, dtype)
  graphdef, abstract_state = nnx.split(nnx.eval_shape(build))
  loaded = load_weights(encoder, encoder_weights, abstract_state)
  if loaded.state is None:
    return build(), loaded.sha256
  state = jax.tree.map(jnp.asarray, loaded.state)
  return nnx.merge(graphdef, state), loaded.sha256


def _build(
  encoder: str, dtype: jax.typing.DTypeLike = jnp.float32
) -> vit.VisionTransformer:
  """Builds an encoder, randomly initialised."""
  spec = get_encoder(encoder)
  return vit.VisionTransformer(
    spec.variant, spec.num_registers, dtype=dtype, rngs=nnx.Rngs(0)
  )


def load_weights(
  name: str, weights: str, abstract_state: nnx.State
) -> EncoderWeights:
  """Loads an encoder's weights, as arrays on the host.

  Args:
    name: The encoder's name, such as `dinov2reg_vit_base_14`.
    weights: Source of the weights: "" for the encoder's file on this machine
      or, failing that, on the Hugging Face Hub; "original" for the original
      PyTorch file; "random" for a random initialisation; or the path of a
      file (.safetensors, .npz, .pth) with the names of
      facebookresearch/dinov2 or of the Hugging Face Hub.
    abstract_state: Abstract state (shapes only) of the `VisionTransformer`.

  Returns:
    The weights and their checksum.

  Raises:
    FileNotFoundError: If the file does not exist, or nobody has published
      weights of this encoder.
    DownloadError: If the file is not on this machine and cannot be
      downloaded.
    ImportError: If it is a PyTorch file and PyTorch is not installed.
    ValueError: If the file has changed since it was downloaded, cannot be
      read, or holds another model.
  """
  if weights == RANDOM:
    return EncoderWeights(None, RANDOM)
  if weights in ("", sources.ORIGINAL):
    return _load_by_name(name, weights, abstract_state)
  path = pathlib.Path(weights).expanduser()
  if not path.is_file():
    raise FileNotFoundError(
      f"`encoder_weights` names {path}, which is not a file. It can be a file, "
      f'"original", "random", or "" for the file of the encoder {name} on this '
      "machine or the Hugging Face Hub."
    )
  state = _read_state(path, abstract_state)
  return EncoderWeights(state, files.file_sha256(path))


def _load_by_name(
  name: str, source: str, abstract_state: nnx.State
) -> EncoderWeights:
  if source:
    file = sources.fetch(name, source)
  else:
    file = sources.find_or_fetch(name)
  try:
    state = _read_state(file.path, abstract_state)
  except ValueError as error:
    raise ValueError(
      f"{error}\n{file.path} is stored as the weights of the encoder {name}: "
      "delete it to have it fetched again."
    ) from error
  return EncoderWeights(state, file.sha256)


def _read_state(path: pathlib.Path, abstract_state: nnx.State) -> nnx.State:
  arrays = files.read_arrays(path)
  table = dinov2_rules.rules_for(arrays, len(abstract_state["blocks"]), path)
  return rules.convert_state(arrays, table, abstract_state, path)


def import_file(
  name: str, path: pathlib.Path, *, replace: bool = False
) -> sources.EncoderFile:
  """Imports a file that was fetched by hand as the weights of an encoder.

  Args:
    name: The encoder's name, such as `dinov2reg_vit_base_14`.
    path: The file, which is copied into the cache.
    replace: Whether to replace weights of this encoder that are already in
      the cache.

  Returns:
    The copy in the cache.

  Raises:
    FileNotFoundError: If there is no such file.
    FileExistsError: If the cache already has weights of this encoder, and
      `replace` is false.
    ValueError: If the file cannot be read or holds another model, or if the
      encoder is bundled with this package.
  """
  if sources.bundled(name):
    raise ValueError(
      f"The encoder {name} comes with this package and cannot be replaced. To "
      "use another file, set `encoder_weights`=FILE, and `encoder` to the name "
      "of its size, such as dinov2_vit_tiny_14."
    )
  if not path.is_file():
    raise FileNotFoundError(f"{path} is not a file; nothing was imported.")
  model = nnx.eval_shape(lambda: _build(name))
  _read_state(path, nnx.state(model))
  return sources.import_into_cache(name, path, replace=replace)


def place(state: nnx.State, shardings) -> nnx.State:
  """Places host arrays on a mesh.

  Args:
    state: Pytree of numpy arrays, the same on every process.
    shardings: The sharding of each array, as a pytree of the same structure.

  Returns:
    The pytree as global arrays.
  """

  def put(value, sharding):
    return jax.make_array_from_callback(
      value.shape, sharding, lambda index: value[index]
    )

  return jax.tree.map(put, state, shardings)
