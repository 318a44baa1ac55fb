"""A named encoder and a file -> its weights."""

import dataclasses
import hashlib
import pathlib
from collections.abc import Mapping

import jax
import numpy as np
from flax import nnx

from weights_conversion import dinov2, rules

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
    name: The encoder, for messages, such as `dinov2reg_vit_base_14`.
    weights: A `.npz` or `.pth` file with facebookresearch/dinov2 names, or
      "random" for a random initialisation.
    abstract_state: State of a `VisionTransformer` (shapes only).

  Returns:
    The weights and their checksum.

  Raises:
    FileNotFoundError: No weights were named, or the file does not exist.
    ValueError: The file cannot be read, or holds another model.
  """
  if weights == RANDOM:
    return EncoderWeights(None, RANDOM)
  if not weights:
    raise FileNotFoundError(
      f"No weights for the encoder {name}. Download the checkpoint of this "
      "variant from github.com/facebookresearch/dinov2 and pass its path: "
      "--config.model.encoder_weights=FILE (.pth, or .npz with the same "
      "names). --config.model.encoder_weights=random trains on a random "
      "encoder, which detects little and serves tests only."
    )
  path = pathlib.Path(weights).expanduser()
  if not path.is_file():
    raise FileNotFoundError(
      f"config.model.encoder_weights names {path}, which is not a file."
    )
  num_blocks = len(abstract_state["blocks"])
  state = rules.convert_state(
    read_arrays(path), dinov2.encoder_rules(num_blocks), abstract_state, path
  )
  return EncoderWeights(state, file_sha256(path))


def read_arrays(path: pathlib.Path) -> Mapping[str, np.ndarray]:
  """Reads a checkpoint file as named arrays, running none of its code.

  Args:
    path: `.npz`, or `.pth` / `.pt` (needs the `convert` extra).

  Returns:
    Name -> array.

  Raises:
    ValueError: The file is of another kind, truncated or corrupt.
    ImportError: A PyTorch file without PyTorch.
  """
  suffix = path.suffix.lower()
  if suffix not in (".npz", ".pth", ".pt"):
    raise ValueError(f"{path}: weights are read from .npz or .pth files only.")
  try:
    if suffix == ".npz":
      # np.load leaves a file that it opened itself open where it fails.
      with open(path, "rb") as f, np.load(f, allow_pickle=False) as file:
        return {key: file[key] for key in file.files}
    return _read_torch(path)
  except ImportError:
    raise
  # A damaged file raises nearly anything: zlib.error, TokenError, IndexError.
  except Exception as error:
    reason = str(error).split("\n")[0] or type(error).__name__
    raise ValueError(
      f"{path} cannot be read as a {suffix} file of weights ({reason}). "
      "It may be truncated or of another kind: fetch it again."
    ) from error


def _read_torch(path: pathlib.Path) -> dict[str, np.ndarray]:
  try:
    import torch
  except ImportError as error:
    raise ImportError(
      f"{path} is a PyTorch file; reading it needs PyTorch: "
      "pip install 'inp-former-jax[convert]'."
    ) from error
  loaded = torch.load(path, map_location="cpu", weights_only=True)
  if not isinstance(loaded, Mapping):
    raise ValueError(f"holds {type(loaded).__name__}, not named tensors")
  wrong = [k for k, v in loaded.items() if not isinstance(v, torch.Tensor)]
  if wrong:
    raise ValueError(f"entries that are not tensors: {', '.join(wrong[:5])}")
  return {
    # numpy has no bfloat16.
    key: (v.float() if v.dtype == torch.bfloat16 else v).detach().numpy()
    for key, v in loaded.items()
  }


def file_sha256(path: pathlib.Path) -> str:
  """Checksum of a file in hex."""
  with open(path, "rb") as file:
    return hashlib.file_digest(file, "sha256").hexdigest()


def place(state: nnx.State, shardings) -> nnx.State:
  """Host arrays, the same on every process, -> global arrays."""

  def put(value, sharding):
    return jax.make_array_from_callback(
      value.shape, sharding, lambda index: value[index]
    )

  return jax.tree.map(put, state, shardings)
