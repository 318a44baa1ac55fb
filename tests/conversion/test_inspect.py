"""What a file of weights is said to be."""

import hashlib
import json
import os
import pathlib
import pickle
import subprocess
import sys

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from inp_former_jax.weights import files
from tests.conftest import GOLDENS, ROOT
from tests.weights.test_dinov2_rules import (
  full_size,
  hugging_face,
  hugging_face_full_size,
  original,
)
from weights_conversion import inspect

FACEBOOK = "DINOv2 encoder with facebookresearch names"
HUGGING_FACE = "DINOv2 encoder with Hugging Face names"


def lines(path: pathlib.Path, capsys) -> dict[str, str]:
  """What is printed: label -> text."""
  assert inspect.main([str(path)]) == 0
  first, *others = capsys.readouterr().out.splitlines()
  assert first == str(path)
  return {line[2:13].rstrip(): line[14:] for line in others}


def test_official_checkpoint(capsys):
  pytest.importorskip("torch")
  path = GOLDENS / "tiny_reg4_model.pth"
  digest = hashlib.sha256(path.read_bytes()).hexdigest()
  assert lines(path, capsys) == {
    "format": "PyTorch",
    "kind": "official INP-Former checkpoint",
    "encoder": "dinov2reg_vit_nano_14 (width 48, 12 blocks)",
    "registers": "4",
    "prototypes": "6",
    "parameters": "708,264 in 315 arrays",
    "dtypes": "float32 (315)",
    "size": f"{path.stat().st_size:,} bytes",
    "sha256": digest,
  }


def test_official_checkpoint_of_one_prototype_list(tmp_path):
  arrays = files.read_arrays(GOLDENS / "tiny_noreg_params.npz")
  arrays["prototype_token.0"] = np.zeros((1, 7, 48), np.float32)
  del arrays["prototype_token"]
  files.write_arrays(tmp_path / "model.safetensors", arrays)
  found = inspect.describe(tmp_path / "model.safetensors")
  assert found.kind == "official INP-Former checkpoint"
  assert found.num_prototypes == 7
  assert found.encoder.name == "dinov2_vit_nano_14"
  assert found.num_parameters == sum(value.size for value in arrays.values())


@pytest.mark.parametrize("suffix", [".npz", ".safetensors", ".pth"])
@pytest.mark.parametrize("num_registers", [0, 4])
@pytest.mark.parametrize(
  ("rename", "kind"), [(dict, FACEBOOK), (hugging_face, HUGGING_FACE)]
)
def test_encoders(tmp_path, num_registers, rename, kind, suffix):
  if suffix == ".pth":
    pytest.importorskip("torch")
  arrays = original(num_registers)
  files.write_arrays(tmp_path / f"encoder{suffix}", rename(arrays))
  found = inspect.describe(tmp_path / f"encoder{suffix}")
  assert found.kind == kind
  registers = "reg" if num_registers else ""
  assert found.encoder.name == f"dinov2{registers}_vit_nano_14"
  assert found.encoder.num_registers == num_registers
  assert found.num_prototypes is None
  assert found.num_parameters == sum(value.size for value in arrays.values())
  assert len(found.keys) == len(rename(arrays))


def sparse_safetensors(path: pathlib.Path, shapes) -> None:
  """A file of this size by its header, none of whose bytes are on the disk."""
  header, position = {}, 0
  for key, shape in shapes.items():
    end = position + 4 * int(np.prod(shape))
    header[key] = {
      "dtype": "F32",
      "shape": shape,
      "data_offsets": [position, end],
    }
    position = end
  text = json.dumps(header).encode()
  with open(path, "wb") as file:
    file.write(len(text).to_bytes(8, "little") + text)
    file.truncate(8 + len(text) + position)


# Parameters of the published encoders.
COUNTS = {"small": 22_056_576, "base": 86_580_480, "large": 304_368_640}


@pytest.mark.parametrize("num_registers", [0, 4])
@pytest.mark.parametrize("variant", list(COUNTS))
@pytest.mark.parametrize("names", [full_size, hugging_face_full_size])
def test_full_size_encoders_by_their_headers(
  tmp_path, monkeypatch, variant, num_registers, names
):
  # The checksum would read a gigabyte of zeros.
  monkeypatch.setattr(files, "file_sha256", lambda path: "0")
  path = tmp_path / "model.safetensors"
  sparse_safetensors(path, names(variant, num_registers))
  found = inspect.describe(path)
  width = found.encoder.width
  registers = "reg" if num_registers else ""
  assert found.encoder.name == f"dinov2{registers}_vit_{variant}_14"
  assert found.num_parameters == COUNTS[variant] + num_registers * width


def test_encoder_of_another_size(tmp_path, capsys):
  arrays = {"cls_token": np.zeros((1, 1, 1536)), "blocks.0.x": np.zeros(2)}
  np.savez(tmp_path / "giant.npz", **arrays)
  found = lines(tmp_path / "giant.npz", capsys)
  assert found["encoder"] == (
    "of another size than the published ones (width 1536, 1 blocks)"
  )


def test_unknown_kind_lists_the_first_names(tmp_path, capsys):
  arrays = {
    "a": np.zeros(3, np.float32),
    "b": np.zeros((2, 2), ml_dtypes.bfloat16),
    **{f"c{i}": np.zeros((), np.int64) for i in range(5)},
  }
  path = tmp_path / "model.safetensors"
  safetensors.numpy.save_file(arrays, path)
  found = lines(path, capsys)
  assert found["kind"] == "unknown"
  assert sorted(found["dtypes"].split(", ")) == [
    "bfloat16 (1)",
    "float32 (1)",
    "int64 (5)",
  ]
  names, more = found["arrays"].split(" and ")
  assert len(names.split(", ")) == 5 and more == "2 more"
  assert set(names.split(", ")) < set(arrays)
  assert found["parameters"] == "12 in 7 arrays"
  assert "encoder" not in found


def test_empty_file_of_weights(tmp_path, capsys):
  np.savez(tmp_path / "empty.npz")
  found = lines(tmp_path / "empty.npz", capsys)
  assert found["kind"] == "unknown"
  assert found["parameters"] == "0 in 0 arrays"


def touch(path: pathlib.Path):
  class Payload:
    def __reduce__(self):
      return pathlib.Path.touch, (path,)

  return Payload()


@pytest.mark.parametrize(
  ("name", "content", "word"),
  [
    ("model.onnx", b"", "'.onnx'"),
    ("model.npz", b"PK\x03\x04", "model.npz cannot be read"),
    ("model.safetensors", b"\xff" * 30, "header too large"),
    ("model.pth", b"not a file of weights", "model.pth cannot be read"),
  ],
)
def test_file_that_cannot_be_read_is_named(
  tmp_path, capsys, name, content, word
):
  if name.endswith(".pth"):
    pytest.importorskip("torch")
  (tmp_path / name).write_bytes(content)
  assert inspect.main([str(tmp_path / name)]) == 1
  output = capsys.readouterr()
  assert output.out == ""
  assert output.err.startswith("error: ")
  assert word in output.err
  assert "Traceback" not in output.err


def test_missing_file_is_named(tmp_path, capsys):
  assert inspect.main([str(tmp_path / "nowhere.npz")]) == 1
  assert "nowhere.npz" in capsys.readouterr().err


def test_malicious_file_is_not_run(tmp_path, capsys):
  pytest.importorskip("torch")
  marker = tmp_path / "it_ran"
  path = tmp_path / "model.pth"
  path.write_bytes(pickle.dumps({"x": touch(marker)}))
  assert inspect.main([str(path)]) == 1
  assert "cannot be read" in capsys.readouterr().err
  assert not marker.exists()


def test_no_device_is_started():
  code = (
    "import sys; from weights_conversion import inspect; "
    "code = inspect.main(sys.argv[1:]); "
    "from jax._src import xla_bridge; "
    "sys.exit(code or xla_bridge.backends_are_initialized())"
  )
  path = GOLDENS / "tiny_reg4_params.npz"
  result = subprocess.run(
    [sys.executable, "-c", code, str(path)],
    cwd=ROOT,
    env=os.environ,
    capture_output=True,
    text=True,
    timeout=120,
  )
  assert result.returncode == 0, result.stderr
  assert "dinov2reg_vit_nano_14" in result.stdout
