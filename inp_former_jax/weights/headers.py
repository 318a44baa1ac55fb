"""Headers of a file of weights: names, shapes and types, but no values.

Headers are checked against the size of the file, so that arrays whose headers
pass can be read.
"""

import contextlib
import dataclasses
import json
import math
import pathlib
import zipfile
from collections.abc import Generator, Mapping

import safetensors

from inp_former_jax.archives import npz_headers, refuse_bomb

SUFFIXES = (".npz", ".safetensors", ".pth", ".pt")
_SAFETENSORS_DTYPES = {
  "F64": "float64",
  "F32": "float32",
  "F16": "float16",
  "BF16": "bfloat16",
  "I64": "int64",
  "I32": "int32",
  "I16": "int16",
  "I8": "int8",
  "U64": "uint64",
  "U32": "uint32",
  "U16": "uint16",
  "U8": "uint8",
  "BOOL": "bool",
}


@dataclasses.dataclass(frozen=True)
class Header:
  """Shape and type of an array, without its values.

  Attributes:
    shape: The array's shape.
    dtype: Name of the array's type in the file, such as `float32`.
  """

  shape: tuple[int, ...]
  dtype: str

  @property
  def size(self) -> int:
    """Number of values in the array."""
    return math.prod(self.shape)


def check_suffix(path: pathlib.Path) -> str:
  """Returns the suffix of a file of weights, which tells its format.

  Args:
    path: Path of the file, which need not exist.

  Returns:
    The suffix in lower case, one of SUFFIXES.

  Raises:
    ValueError: If the suffix is not one of SUFFIXES.
  """
  suffix = path.suffix.lower()
  if suffix not in SUFFIXES:
    raise ValueError(
      f"{path} has the suffix {suffix!r}; expected a file of weights, one of "
      f"{', '.join(SUFFIXES)}."
    )
  return suffix


def read_headers(path: pathlib.Path) -> dict[str, Header]:
  """Reads the headers of a file of weights.

  Args:
    path: The file to read: `.npz`, `.safetensors`, or `.pth` / `.pt` (which
      need the `convert` extra, and whose values are mapped, not read).

  Returns:
    The header of each array by name, in the order of the values in the file.

  Raises:
    ValueError: If the file is of another kind, truncated or corrupt, or its
      headers do not fit its size.
    OSError: If the file does not exist or may not be read.
    ImportError: If it is a PyTorch file and PyTorch is not installed.
  """
  with errors_name_the_file(path) as suffix:
    if suffix == ".npz":
      return {
        key: Header(shape, dtype.name)
        for key, (shape, dtype) in npz_headers(path).items()
      }
    if suffix == ".safetensors":
      return _safetensors_headers(path)
    return {
      key: Header(tuple(v.shape), str(v.dtype).removeprefix("torch."))
      for key, v in load_torch(path, mmap=True).items()
    }


@contextlib.contextmanager
def errors_name_the_file(path: pathlib.Path) -> Generator[str]:
  """Turns the errors of parsers into a ValueError that names the file.

  Args:
    path: The file that is parsed within the context.

  Yields:
    The suffix of the file, one of SUFFIXES.

  Raises:
    ValueError: If the suffix is not one of SUFFIXES, or the file cannot be
      parsed.
    OSError: If the file does not exist or may not be read.
  """
  suffix = check_suffix(path)
  path.open("rb").close()  # raises the system's error if missing or forbidden
  try:
    yield suffix
  except (ImportError, MemoryError):
    raise
  # A damaged file can make a parser fail with any error.
  except Exception as error:
    reason = str(error).split("\n")[0].rstrip(".") or type(error).__name__
    raise ValueError(
      f"{path} cannot be read as a {suffix} file of weights: {reason}. "
      "It may be truncated, damaged or of another kind: fetch it again."
    ) from (error.__cause__ or error)


def _safetensors_headers(path: pathlib.Path) -> dict[str, Header]:
  headers = {}
  with safetensors.safe_open(path, framework="numpy") as file:
    for key in file.offset_keys():
      array = file.get_slice(key)
      dtype = array.get_dtype()
      if dtype not in _SAFETENSORS_DTYPES:
        raise ValueError(f"{key} is of the type {dtype}, which is unsupported")
      shape = tuple(array.get_shape())
      headers[key] = Header(shape, _SAFETENSORS_DTYPES[dtype])
  _refuse_duplicates(path)
  return headers


def _refuse_duplicates(path: pathlib.Path) -> None:
  """Raises a ValueError if a safetensors header has the same name twice.

  Of two entries with the same name, `safe_open` silently keeps the last one,
  provided that the entries it keeps cover the whole file.
  """
  with open(path, "rb") as file:
    length = int.from_bytes(file.read(8), "little")
    json.loads(file.read(length), object_pairs_hook=_once)


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
  """Builds a JSON object, refusing a name that appears twice."""
  result = dict(pairs)
  if len(result) < len(pairs):
    names = [name for name, _ in pairs]
    twice = next(name for name in names if names.count(name) > 1)
    raise ValueError(f"its header names {twice} twice")
  return result


def load_torch(path: pathlib.Path, *, mmap: bool = False) -> dict:
  """Reads a PyTorch state dict without running any code of the file.

  Args:
    path: A file written by `torch.save`.
    mmap: Whether the values are mapped instead of read, where the file's
      format allows it.

  Returns:
    The dense torch.Tensors by name, on the CPU.

  Raises:
    ImportError: If PyTorch is not installed.
    ValueError: If the file holds anything but named dense tensors.
    Exception: If the file is damaged or malicious; the type of the error is
      up to the unpickler.
  """
  try:
    import torch
  except ImportError as error:
    raise ImportError(
      f"{path} is a PyTorch file, which needs PyTorch: "
      "pip install 'inp-former-jax[convert]'."
    ) from error
  # Files from before PyTorch 1.6 are not zip files and cannot be mapped.
  is_archive = zipfile.is_zipfile(path)
  if is_archive:
    refuse_bomb(path)
  loaded = torch.load(
    path,
    map_location="cpu",
    weights_only=True,
    mmap=mmap and is_archive,
  )
  if not isinstance(loaded, Mapping):
    raise ValueError(f"it holds {type(loaded).__name__}, not named tensors")
  wrong = [k for k, v in loaded.items() if not isinstance(v, torch.Tensor)]
  if wrong:
    names = ", ".join(map(str, wrong[:5]))
    raise ValueError(f"it has entries that are not tensors: {names}")
  for key, value in loaded.items():
    if value.layout != torch.strided or value.is_quantized or value.is_meta:
      raise ValueError(f"{key} is not a dense tensor")
  return {str(key): value.detach() for key, value in loaded.items()}
