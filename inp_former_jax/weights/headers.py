"""What a file of weights says about its arrays, without reading them.

A header is checked against the file: what passes here can be read.
"""

import contextlib
import dataclasses
import json
import math
import pathlib
import zipfile
from collections.abc import Iterator, Mapping

import numpy as np
import safetensors

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
  """An array without its values.

  Attributes:
    shape: Its shape.
    dtype: Name of its type in the file, such as `float32`.
  """

  shape: tuple[int, ...]
  dtype: str

  @property
  def size(self) -> int:
    """Number of values."""
    return math.prod(self.shape)


def check_suffix(path: pathlib.Path) -> str:
  """The format by the file's name.

  Args:
    path: A file of weights; need not exist.

  Returns:
    One of SUFFIXES.

  Raises:
    ValueError: It is none of them.
  """
  suffix = path.suffix.lower()
  if suffix not in SUFFIXES:
    raise ValueError(
      f"{path} has the suffix {suffix!r}: files of weights are "
      f"{', '.join(SUFFIXES)}."
    )
  return suffix


def read_headers(path: pathlib.Path) -> dict[str, Header]:
  """Reads the headers of a file of weights.

  Args:
    path: `.npz`, `.safetensors`, or `.pth` / `.pt` (needs the `convert`
      extra; its values are mapped, not read).

  Returns:
    Name -> header, in the order in which the values lie in the file.

  Raises:
    ValueError: The file is of another kind, truncated or corrupt, or its
      headers do not fit its size.
    OSError: It does not exist or may not be read.
    ImportError: A PyTorch file without PyTorch.
  """
  with errors_name_the_file(path) as suffix:
    if suffix == ".npz":
      return _npz_headers(path)
    if suffix == ".safetensors":
      return _safetensors_headers(path)
    return {
      key: Header(tuple(v.shape), str(v.dtype).removeprefix("torch."))
      for key, v in load_torch(path, mmap=True).items()
    }


@contextlib.contextmanager
def errors_name_the_file(path: pathlib.Path) -> Iterator[str]:
  """Errors of parsers become a ValueError that names the file.

  Args:
    path: The file that is parsed inside.

  Yields:
    Its suffix, one of SUFFIXES.
  """
  suffix = check_suffix(path)
  path.open("rb").close()  # missing or forbidden: as the system says it
  try:
    yield suffix
  except (ImportError, MemoryError):
    raise
  # A damaged file can make a parser fail in any way.
  except Exception as error:
    reason = str(error).split("\n")[0].rstrip(".") or type(error).__name__
    raise ValueError(
      f"{path} cannot be read as a {suffix} file of weights: {reason}. "
      "It may be truncated, damaged or of another kind: fetch it again."
    ) from (error.__cause__ or error)


def _npz_headers(path: pathlib.Path) -> dict[str, Header]:
  headers = {}
  with zipfile.ZipFile(path) as archive:
    for info in archive.infolist():
      key = info.filename.removesuffix(".npy")
      if key in headers:
        raise ValueError(f"it holds {key} twice")
      with archive.open(info) as member:
        headers[key] = _npy_header(member, key, info.file_size)
  return headers


def _npy_header(member, key: str, file_size: int) -> Header:
  readers = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
  }
  try:
    version = np.lib.format.read_magic(member)
    shape, _, dtype = readers[version](member)
  except (ValueError, KeyError) as error:
    raise ValueError(f"{key} is no array ({error})") from error
  if dtype.hasobject:
    raise ValueError(f"{key} holds pickled objects, which are never read")
  _check_bytes(key, shape, dtype, file_size - member.tell())
  return Header(shape, dtype.name)


def _safetensors_headers(path: pathlib.Path) -> dict[str, Header]:
  headers = {}
  with safetensors.safe_open(path, framework="numpy") as file:
    for key in file.offset_keys():
      array = file.get_slice(key)
      dtype = array.get_dtype()
      if dtype not in _SAFETENSORS_DTYPES:
        raise ValueError(f"{key} is of the type {dtype}, which is not read")
      shape = tuple(array.get_shape())
      headers[key] = Header(shape, _SAFETENSORS_DTYPES[dtype])
  _refuse_duplicates(path)
  return headers


def _refuse_duplicates(path: pathlib.Path) -> None:
  """Raises a ValueError if a safetensors header has one name twice.

  Of two entries with one name `safe_open` silently keeps the last, provided
  that what it keeps covers the whole file.
  """
  with open(path, "rb") as file:
    length = int.from_bytes(file.read(8), "little")
    json.loads(file.read(length), object_pairs_hook=_once)


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
  """A JSON object none of whose names is there twice."""
  result = dict(pairs)
  if len(result) < len(pairs):
    names = [name for name, _ in pairs]
    twice = next(name for name in names if names.count(name) > 1)
    raise ValueError(f"its header names {twice} twice")
  return result


def _check_bytes(
  key: str, shape: tuple[int, ...], dtype: np.dtype, found: int
) -> None:
  needed = math.prod(shape) * dtype.itemsize
  if needed != found:
    raise ValueError(
      f"{key}, {dtype.name} of shape {shape}, needs {needed} bytes, but the "
      f"file has {found} for it"
    )


def load_torch(path: pathlib.Path, *, mmap: bool = False) -> dict:
  """Reads a state dict, running none of its code.

  Args:
    path: A file of `torch.save`.
    mmap: Map the values instead of reading them, where its format allows.

  Returns:
    Name -> dense torch.Tensor on the CPU.

  Raises:
    ImportError: There is no PyTorch.
    ValueError: It holds something else than named tensors.
    Exception: Whatever the unpickler says of a damaged or malicious file.
  """
  try:
    import torch
  except ImportError as error:
    raise ImportError(
      f"{path} is a PyTorch file, which needs PyTorch: "
      "pip install 'inp-former-jax[convert]'."
    ) from error
  # The format before PyTorch 1.6 is no zip file and cannot be mapped.
  loaded = torch.load(
    path,
    map_location="cpu",
    weights_only=True,
    mmap=mmap and zipfile.is_zipfile(path),
  )
  if not isinstance(loaded, Mapping):
    raise ValueError(f"holds {type(loaded).__name__}, not named tensors")
  wrong = [k for k, v in loaded.items() if not isinstance(v, torch.Tensor)]
  if wrong:
    names = ", ".join(map(str, wrong[:5]))
    raise ValueError(f"entries that are not tensors: {names}")
  for key, value in loaded.items():
    if value.layout != torch.strided or value.is_quantized or value.is_meta:
      raise ValueError(f"{key} is no dense tensor")
  return {str(key): value.detach() for key, value in loaded.items()}
