"""Files of weights: what is read and written, and what is refused."""

import io
import os
import pathlib
import pickle
import sys
import zipfile

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from inp_former_jax.weights import files, headers

SUFFIXES = [".npz", ".safetensors", ".pth"]


def example() -> dict[str, np.ndarray]:
  rng = np.random.default_rng(0)
  return {
    "a.weight": rng.normal(size=(3, 4)).astype(np.float32),
    "b.half": rng.normal(size=5).astype(np.float16),
    "c.scalar": np.float32(3.5),
    "d.empty": np.zeros((0, 3), np.float32),
    "e.transposed": rng.normal(size=(4, 3)).astype(np.float32).T,
    "f.count": np.arange(3),
  }


def write(path: pathlib.Path, arrays=None) -> pathlib.Path:
  if path.suffix in (".pth", ".pt"):
    pytest.importorskip("torch")
  files.write_arrays(path, example() if arrays is None else arrays)
  return path


@pytest.mark.parametrize("suffix", [*SUFFIXES, ".pt"])
def test_arrays_come_back_bit_by_bit(tmp_path, suffix):
  found = files.read_arrays(write(tmp_path / f"model{suffix}"))
  assert sorted(found) == sorted(example())
  for key, value in example().items():
    assert found[key].dtype == value.dtype, key
    assert np.array_equal(found[key], value), key
    assert found[key].shape == value.shape, key


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_headers_are_those_of_the_arrays(tmp_path, suffix):
  found = headers.read_headers(write(tmp_path / f"model{suffix}"))
  assert {key: (h.shape, h.dtype) for key, h in found.items()} == {
    key: (value.shape, value.dtype.name) for key, value in example().items()
  }


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_same_arrays_give_the_same_bytes(tmp_path, suffix):
  first = write(tmp_path / f"first{suffix}").read_bytes()
  assert write(tmp_path / f"second{suffix}").read_bytes() == first


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_bfloat16_is_read_as_float32(tmp_path, suffix):
  values = np.array([1.0, -2.5, 3e38, 1e-40], ml_dtypes.bfloat16)
  path = tmp_path / f"model{suffix}"
  if suffix == ".pth":
    torch = pytest.importorskip("torch")
    tensor = torch.tensor(values.astype(np.float32)).bfloat16()
    torch.save({"x": tensor}, path)
  else:
    safetensors.numpy.save_file({"x": values}, path)
  found = files.read_arrays(path)["x"]
  assert found.dtype == np.float32
  np.testing.assert_array_equal(found, values.astype(np.float32))
  assert headers.read_headers(path)["x"].dtype == "bfloat16"


def test_pytorch_file_of_before_1_6_is_read(tmp_path):
  torch = pytest.importorskip("torch")
  path = tmp_path / "model.pth"
  tensors = {"x": torch.arange(3.0)}
  torch.save(tensors, path, _use_new_zipfile_serialization=False)
  np.testing.assert_array_equal(files.read_arrays(path)["x"], [0, 1, 2])
  assert headers.read_headers(path)["x"].shape == (3,)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_failed_write_keeps_the_old_file(tmp_path, suffix, monkeypatch):
  path = write(tmp_path / f"model{suffix}")
  before = path.read_bytes()

  def fail(*args):
    raise OSError(28, "No space left on device")

  monkeypatch.setattr(os, "fsync", fail)
  with pytest.raises(OSError, match="No space left"):
    write(path, {"x": np.zeros(3)})
  assert path.read_bytes() == before
  assert os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize("suffix", ["", ".bin", ".onnx", ".npy"])
def test_unknown_suffix_is_refused(tmp_path, suffix):
  path = tmp_path / f"model{suffix}"
  path.write_bytes(b"anything")
  for action in (files.read_arrays, headers.read_headers):
    with pytest.raises(ValueError, match=r"\.npz, \.safetensors, \.pth"):
      action(path)
  with pytest.raises(ValueError, match=r"\.npz, \.safetensors, \.pth"):
    files.write_arrays(path, example())
  assert path.read_bytes() == b"anything"


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_missing_file_is_named(tmp_path, suffix):
  with pytest.raises(FileNotFoundError, match="nowhere"):
    files.read_arrays(tmp_path / f"nowhere{suffix}")


@pytest.mark.parametrize("action", [files.read_arrays, headers.read_headers])
@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("share", [0.0, 0.01, 0.4, 0.9, 0.999])
def test_truncated_file_is_refused(tmp_path, suffix, share, action):
  path = write(tmp_path / f"model{suffix}")
  content = path.read_bytes()
  path.write_bytes(content[: int(share * len(content))])
  with pytest.raises(ValueError, match=f"model{suffix} cannot be read"):
    action(path)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("content", [b"<html>Not found</html>", b"\x00" * 99])
def test_file_of_another_kind_is_refused(tmp_path, suffix, content):
  if suffix == ".pth":
    pytest.importorskip("torch")
  path = tmp_path / f"model{suffix}"
  path.write_bytes(content)
  with pytest.raises(ValueError, match=f"model{suffix} cannot be read"):
    files.read_arrays(path)


def test_damaged_array_of_an_npz_is_named(tmp_path):
  path = tmp_path / "model.npz"
  arrays = {key: np.full(30_000, i, np.float32) for i, key in enumerate("xyz")}
  np.savez(path, **arrays)
  content = bytearray(path.read_bytes())
  content[content.index(arrays["y"].tobytes()) + 99_999] ^= 1
  path.write_bytes(content)
  with pytest.raises(ValueError, match=r"model\.npz.*y is damaged.*CRC"):
    files.read_arrays(path)


def test_npz_with_a_lying_shape_is_named(tmp_path):
  buffer = io.BytesIO()
  np.save(buffer, np.zeros((2, 3), np.float32))
  malformed = buffer.getvalue().replace(b"(2, 3)", b"(2e5,)")
  too_large = buffer.getvalue().replace(b"(2, 3), } ", b"(2000, 30)}")
  for content in (malformed, too_large):
    path = tmp_path / "model.npz"
    with zipfile.ZipFile(path, "w") as archive:
      archive.writestr("x.npy", content)
    with pytest.raises(ValueError, match=r"model\.npz.* x[ ,]"):
      files.read_arrays(path)


def test_npz_with_one_name_twice_is_refused(tmp_path):
  path = tmp_path / "model.npz"
  np.savez(path, x=np.zeros(2))
  with zipfile.ZipFile(path, "a") as archive:
    content = archive.read("x.npy")
    with pytest.warns(UserWarning, match="Duplicate name"):
      archive.writestr("x.npy", content)
  with pytest.raises(ValueError, match="x twice"):
    files.read_arrays(path)


class Payload:
  """Unpickling it makes a file: harmless, and seen."""

  def __init__(self, marker: pathlib.Path):
    self.marker = marker

  def __reduce__(self):
    return pathlib.Path.touch, (self.marker,)


def malicious_zip(path: pathlib.Path, payload: Payload) -> None:
  torch = pytest.importorskip("torch")
  torch.save({"x": torch.zeros(2), "y": payload}, path)


def malicious_legacy(path: pathlib.Path, payload: Payload) -> None:
  torch = pytest.importorskip("torch")
  both = {"x": torch.zeros(2), "y": payload}
  torch.save(both, path, _use_new_zipfile_serialization=False)


def malicious_pickle(path: pathlib.Path, payload: Payload) -> None:
  pytest.importorskip("torch")
  path.write_bytes(pickle.dumps({"y": payload}))


def malicious_npz(path: pathlib.Path, payload: Payload) -> None:
  objects = np.array([payload], object)
  np.savez(path, x=np.zeros(2), y=objects)


def malicious_npz_pickle(path: pathlib.Path, payload: Payload) -> None:
  path.write_bytes(pickle.dumps({"y": payload}))


@pytest.mark.parametrize("action", [files.read_arrays, headers.read_headers])
@pytest.mark.parametrize(
  ("make", "suffix"),
  [
    (malicious_zip, ".pth"),
    (malicious_legacy, ".pth"),
    (malicious_pickle, ".pth"),
    (malicious_npz, ".npz"),
    (malicious_npz_pickle, ".npz"),
  ],
)
def test_malicious_pickle_is_refused_and_never_run(
  tmp_path, make, suffix, action
):
  marker, path = tmp_path / "it_ran", tmp_path / f"model{suffix}"
  make(path, Payload(marker))
  with pytest.raises(ValueError, match=f"model{suffix} cannot be read"):
    action(path)
  assert not marker.exists()
  # The payload is a real one: plain unpickling runs it.
  pickle.loads(pickle.dumps(Payload(marker)))
  assert marker.exists()


def test_pickled_objects_of_an_npz_are_named(tmp_path):
  path = tmp_path / "model.npz"
  np.savez(path, x=np.zeros(2), y=np.array([{}], object))
  with pytest.raises(ValueError, match="y holds pickled objects"):
    files.read_arrays(path)


def test_pytorch_file_of_something_else_is_refused(tmp_path):
  torch = pytest.importorskip("torch")
  path = tmp_path / "model.pth"
  for content, word in (
    ([torch.zeros(2)], "holds list"),
    ({"epoch": 3, "x": torch.zeros(2)}, "not tensors: epoch"),
    ({"model": {"x": torch.zeros(2)}}, "not tensors: model"),
    ({"x": torch.eye(3).to_sparse()}, "x is not a dense tensor"),
    ({"x": torch.empty(3, device="meta")}, "x is not a dense tensor"),
  ):
    torch.save(content, path)
    with pytest.raises(ValueError, match=word):
      files.read_arrays(path)


def test_pytorch_file_without_pytorch_names_the_extra(tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, "torch", None)
  path = tmp_path / "model.pth"
  path.write_bytes(b"anything")
  for action in (files.read_arrays, headers.read_headers):
    with pytest.raises(ImportError, match=r"inp-former-jax\[convert\]"):
      action(path)
  with pytest.raises(ImportError, match=r"inp-former-jax\[convert\]"):
    files.write_arrays(path, example())
  assert path.read_bytes() == b"anything"


def test_sha256_is_that_of_the_bytes(tmp_path):
  path = tmp_path / "abc"
  path.write_bytes(b"abc")
  expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
  assert files.file_sha256(path) == expected
