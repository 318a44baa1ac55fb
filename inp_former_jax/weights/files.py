"""Files of weights: names and arrays in `.npz`, `.safetensors` and `.pth`."""

import errno
import pathlib
from collections.abc import Mapping

# Importing ml_dtypes also registers bfloat16 with numpy; safetensors needs it.
import ml_dtypes
import numpy as np
import safetensors.numpy

from inp_former_jax.atomic import replacing
from inp_former_jax.hashing import file_sha256
from inp_former_jax.weights.headers import (
  SUFFIXES,
  Header,
  check_suffix,
  errors_name_the_file,
  load_torch,
  read_headers,
)
from inp_former_jax.weights.quantisation import dequantise

__all__ = [
  "SUFFIXES",
  "check_suffix",
  "file_sha256",
  "read_arrays",
  "write_arrays",
]


def read_arrays(path: pathlib.Path) -> dict[str, np.ndarray]:
  """Reads a file of weights as named arrays, without running any of its code.

  Values are not checked here: `rules.convert` reports those that are NaN or
  infinite, together with every other mismatch.

  Args:
    path: The file to read: `.npz`, `.safetensors`, or `.pth` / `.pt` (which
      need the `convert` extra).

  Returns:
    The arrays by name, in the order of the file. Arrays of bfloat16, and 8-bit
    integers with scales (see `quantisation`), become float32.

  Raises:
    ValueError: If the file, or an array in it, is of another kind, truncated
      or corrupt.
    OSError: If the file does not exist or may not be read.
    ImportError: If it is a PyTorch file and PyTorch is not installed.
  """
  path = pathlib.Path(path)
  with errors_name_the_file(path) as suffix:
    if suffix in (".pth", ".pt"):
      return _read_torch(path)
  headers = read_headers(path)
  with errors_name_the_file(path):
    if suffix == ".npz":
      return dequantise(_read_npz(path, headers))
    return dequantise(_read_safetensors(path, headers))


def _read_npz(
  path: pathlib.Path, headers: Mapping[str, Header]
) -> dict[str, np.ndarray]:
  arrays = {}
  with np.load(path, allow_pickle=False) as file:
    for key in headers:
      try:
        arrays[key] = file[key]
      except Exception as error:  # each decompressor has its own errors
        raise ValueError(f"{key} is damaged ({error})") from error
  return arrays


def _read_safetensors(
  path: pathlib.Path, headers: Mapping[str, Header]
) -> dict[str, np.ndarray]:
  arrays = {}
  with safetensors.safe_open(path, framework="numpy") as file:
    for key in headers:
      array = file.get_tensor(key)
      bfloat16 = array.dtype == ml_dtypes.bfloat16
      arrays[key] = array.astype(np.float32) if bfloat16 else array
  return arrays


def _read_torch(path: pathlib.Path) -> dict[str, np.ndarray]:
  arrays = {}
  for key, value in load_torch(path).items():
    try:
      # PyTorch cannot turn a bfloat16 tensor into a numpy array.
      bfloat16 = str(value.dtype) == "torch.bfloat16"
      arrays[key] = (value.float() if bfloat16 else value).numpy()
    except (RuntimeError, TypeError) as error:
      raise ValueError(f"{key} is not an array of numbers ({error})") from error
  return arrays


def write_arrays(path: pathlib.Path, arrays: Mapping[str, np.ndarray]) -> None:
  """Writes a file of weights atomically.

  Args:
    path: The file to write, which replaces any file of that name. The suffix
      decides the format: `.npz`, `.safetensors`, or `.pth` / `.pt` (which need
      the `convert` extra).
    arrays: The arrays by name. The order is kept, except that the safetensors
      library groups arrays by type and sorts those of one type by name.

  Raises:
    ValueError: If the suffix is none of these.
    OSError: If the file cannot be written.
    ImportError: If it is a PyTorch file and PyTorch is not installed.
  """
  path = pathlib.Path(path)
  suffix = check_suffix(path)
  if not path.parent.is_dir():  # a mistyped folder must not be created
    raise FileNotFoundError(
      errno.ENOENT, "No such folder to write to", str(path.parent)
    )
  arrays = {key: np.asarray(v, order="C") for key, v in arrays.items()}
  if suffix == ".npz":
    with replacing(path) as part:
      # numpy's stub mistakes the arrays' names for its option `allow_pickle`.
      # pyrefly: ignore[bad-argument-type]
      np.savez(part, **arrays)
  elif suffix == ".safetensors":
    with replacing(path) as part:
      safetensors.numpy.save_file(arrays, part)
  else:
    _write_torch(path, arrays)


def _write_torch(path: pathlib.Path, arrays: Mapping[str, np.ndarray]) -> None:
  try:
    import torch
  except ImportError as error:
    raise ImportError(
      f"Writing {path} needs PyTorch: pip install 'inp-former-jax[convert]'."
    ) from error
  # Copies, because a tensor may not share the memory of a read-only array.
  tensors = {
    key: torch.from_numpy(value.copy()) for key, value in arrays.items()
  }
  # Given a path, torch.save would write the temporary name into the file.
  with replacing(path) as part, open(part, "wb") as file:
    torch.save(tensors, file)
