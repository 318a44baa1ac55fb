"""Files of safetensors: what the library reads and what is refused."""

import json

import numpy as np
import pytest
import safetensors.numpy

from inp_former_jax.weights import files, headers
from tests.weights.test_files import example


def test_safetensors_library_reads_what_is_written(tmp_path):
  path = tmp_path / "model.safetensors"
  files.write_arrays(path, example())
  found = safetensors.numpy.load_file(path)
  assert sorted(found) == sorted(example())
  for key, value in example().items():
    np.testing.assert_array_equal(found[key], value)


def test_metadata_of_safetensors_is_no_array(tmp_path):
  path = tmp_path / "model.safetensors"
  one = {"x": np.ones(2, np.float32)}
  safetensors.numpy.save_file(one, path, metadata={"format": "pt"})
  assert list(files.read_arrays(path)) == ["x"]


def entry(begin: int, end: int, shape=(2,), dtype="F32") -> dict:
  return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def safetensors_file(path, header, data=b"\x00" * 16, length=None):
  text = header if isinstance(header, bytes) else json.dumps(header).encode()
  length = len(text) if length is None else length
  path.write_bytes(length.to_bytes(8, "little") + text + data)
  return path


@pytest.mark.parametrize("action", [files.read_arrays, headers.read_headers])
@pytest.mark.parametrize(
  ("y", "message"),
  [
    (entry(8, 24, (4,)), "file not fully covered"),
    (entry(8, 16, (3,)), "invalid shape, data type, or offset"),
    (entry(8, 16, (2**40, 2**40)), "overflow"),
    (entry(8, 16, dtype="F16"), "invalid shape, data type, or offset"),
    (entry(4, 12), "invalid offset for tensor `y`"),
    (entry(0, 8), "invalid offset for tensor `[xy]`"),
    (entry(12, 16, (1,)), "invalid offset for tensor `y`"),
    (entry(8, 12, (1,)), "file not fully covered"),
    (entry(16, 8), "invalid offset for tensor `y`"),
    (entry(-8, 0), "integer `-8`"),
    (entry(8, 16, (-2,)), "integer `-2`"),
    (entry(8, 16, (2.0,)), "floating point `2.0`"),
    (entry(8, 16, (True, 2)), "boolean `true`"),
    (entry(8, 16, None), "expected a sequence"),
    (entry(8, 16, dtype="Q7"), "unknown variant `Q7`"),
    (entry(8, 16, dtype=["F32"]), "invalid JSON in header"),
    (entry(8, 16, (8,), dtype="F8_E4M3"), "y is of the type F8_E4M3"),
    ({"dtype": "F32", "shape": [2]}, "missing field `data_offsets`"),
    ([1, 2], "invalid JSON in header"),
  ],
)
def test_lying_header_of_safetensors_is_refused(tmp_path, y, message, action):
  path = tmp_path / "model.safetensors"
  safetensors_file(path, {"x": entry(0, 8), "y": y})
  with pytest.raises(ValueError, match=message) as error:
    action(path)
  assert str(path) in str(error.value)


def test_honest_header_of_safetensors_is_read(tmp_path):
  path = tmp_path / "model.safetensors"
  safetensors_file(path, {"y": entry(8, 16), "x": entry(0, 8)})
  # In the order of the values, not of the entries or of the names.
  assert list(files.read_arrays(path)) == ["x", "y"]
  safetensors_file(path, {"x": entry(8, 16), "y": entry(0, 8)})
  assert list(files.read_arrays(path)) == ["y", "x"]


@pytest.mark.parametrize("action", [files.read_arrays, headers.read_headers])
@pytest.mark.parametrize("first", [entry(0, 8, (1, 2)), entry(40, 48)])
def test_safetensors_with_one_name_twice_is_refused(tmp_path, first, action):
  text = f'{{"x": {json.dumps(first)}, "x": {json.dumps(entry(0, 8))}}}'
  path = tmp_path / "model.safetensors"
  safetensors_file(path, text.encode(), b"\x00" * 8)
  # The library keeps the last and says nothing.
  assert safetensors.numpy.load_file(path)["x"].shape == (2,)
  with pytest.raises(ValueError, match="names x twice") as error:
    action(path)
  assert str(path) in str(error.value)


@pytest.mark.parametrize(
  ("header", "length", "message"),
  [
    (b"{}", 10**6, "invalid header length"),
    (b"{}", 2**63, "header too large"),
    (b"not json", None, "invalid JSON in header"),
    (b"\xff\xfe", None, "invalid UTF-8 in header"),
    (b"[]", None, "invalid JSON in header"),
    (b"[" * 100_000, None, "invalid JSON in header"),
    (b'{"x": 3}', None, "invalid JSON in header"),
  ],
)
def test_malformed_header_of_safetensors_is_refused(
  tmp_path, header, length, message
):
  path = tmp_path / "model.safetensors"
  safetensors_file(path, header, length=length)
  with pytest.raises(ValueError, match=message) as error:
    files.read_arrays(path)
  assert str(path) in str(error.value)
