"""The command that rewrites an encoder's file."""

import numpy as np
import pytest

from inp_former_jax.weights import dinov2_names, files
from tests.weights.test_dinov2_rules import (
  assert_same_arrays,
  hugging_face,
  original,
)
from weights_conversion import dinov2


@pytest.mark.parametrize("suffix", [".npz", ".safetensors", ".pth"])
@pytest.mark.parametrize("naming", list(dinov2_names.Naming))
@pytest.mark.parametrize("num_registers", [0, 4])
def test_encoder_is_converted_bit_by_bit(
  tmp_path, capsys, num_registers, naming, suffix
):
  if suffix == ".pth":
    pytest.importorskip("torch")
  expected = arrays = original(num_registers)
  if naming is dinov2_names.Naming.HUGGING_FACE:
    arrays = hugging_face(expected, "dinov2.")
  source, target = tmp_path / "in.safetensors", tmp_path / f"out{suffix}"
  files.write_arrays(source, arrays)
  assert dinov2.main([str(source), str(target)]) == 0
  found = files.read_arrays(target)
  if suffix == ".safetensors":  # its library sorts them
    found = {key: found[key] for key in expected}
  assert_same_arrays(found, expected)
  output = capsys.readouterr().out
  name = f"dinov2{'reg' if num_registers else ''}_vit_nano_14"
  assert output.startswith(f"{target}: {name} (width 48, 12 blocks")
  assert output.count("\n") == 1


def test_mask_token_and_final_norm_may_be_absent(tmp_path):
  arrays = original(0)
  for key in ("mask_token", "norm.weight", "norm.bias"):
    del arrays[key]
  files.write_arrays(tmp_path / "in.npz", hugging_face(arrays))
  dinov2.convert_file(tmp_path / "in.npz", tmp_path / "out.npz")
  assert_same_arrays(files.read_arrays(tmp_path / "out.npz"), arrays)


def test_half_precision_becomes_float32_of_the_same_value(tmp_path):
  half = {k: v.astype(np.float16) for k, v in original(0).items()}
  files.write_arrays(tmp_path / "in.npz", half)
  dinov2.convert_file(tmp_path / "in.npz", tmp_path / "out.npz")
  expected = {key: value.astype(np.float32) for key, value in half.items()}
  assert_same_arrays(files.read_arrays(tmp_path / "out.npz"), expected)


@pytest.mark.parametrize(
  ("target", "word"),
  [
    ("out.bin", "'.bin'"),
    ("in.npz", "the file to read"),
    ("nowhere/out.npz", "No such folder"),
  ],
)
def test_target_that_cannot_be_written_is_named(tmp_path, capsys, target, word):
  files.write_arrays(tmp_path / "in.npz", original(0))
  before = (tmp_path / "in.npz").read_bytes()
  command = [str(tmp_path / "in.npz"), str(tmp_path / target)]
  assert dinov2.main(command) == 1
  assert word in capsys.readouterr().err
  assert (tmp_path / "in.npz").read_bytes() == before


def test_source_that_does_not_fit_writes_nothing(tmp_path, capsys):
  arrays = original(0)
  arrays["blocks.11.mlp.fc3.bias"] = arrays.pop("blocks.11.mlp.fc2.bias")
  files.write_arrays(tmp_path / "in.npz", arrays)
  command = [str(tmp_path / "in.npz"), str(tmp_path / "out.npz")]
  assert dinov2.main(command) == 1
  error = capsys.readouterr().err
  assert "blocks.11.mlp.fc2.bias: missing" in error
  assert "nearest: blocks.11.mlp.fc3.bias" in error
  assert not (tmp_path / "out.npz").exists()
