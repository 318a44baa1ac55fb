"""Official checkpoints: to this project and back."""

import json
import pathlib

import numpy as np
import pytest

from inp_former_jax import evaluate, train
from inp_former_jax.training.checkpoints import checkpoint
from inp_former_jax.weights import files
from tests.conftest import GOLDENS
from weights_conversion import (
  inp_former,
  inp_former_names,
  official_checkpoints,
  verify,
)

PARAMS = ["tiny_reg4_params.npz", "tiny_noreg_params.npz"]


def assert_same_arrays(found, expected) -> None:
  assert list(found) == list(expected)
  for key, value in expected.items():
    assert found[key].dtype == value.dtype, key
    assert found[key].tobytes() == value.tobytes(), key
    assert found[key].shape == value.shape, key


@pytest.fixture(scope="module", params=PARAMS)
def round_trip(request, tmp_path_factory):
  """An official file's arrays, and the workdir it was converted to."""
  source = GOLDENS / request.param
  workdir = tmp_path_factory.mktemp("converted") / "run"
  official_checkpoints.to_flax(source, workdir)
  return files.read_arrays(source), workdir


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_round_trip_is_bit_exact(round_trip, tmp_path, suffix):
  arrays, workdir = round_trip
  target = tmp_path / f"model{suffix}"
  assert official_checkpoints.to_torch(workdir, target) == 0
  found = files.read_arrays(target)
  if suffix == ".safetensors":  # its keys are sorted by the format
    arrays = {key: arrays[key] for key in found}
  assert_same_arrays(found, arrays)


def test_pth_round_trip_is_bit_exact(tmp_path):
  torch = pytest.importorskip("torch")
  source = GOLDENS / "tiny_reg4_model.pth"
  official_checkpoints.to_flax(source, tmp_path / "run")
  official_checkpoints.to_torch(tmp_path / "run", tmp_path / "model.pth")
  expected = torch.load(source, weights_only=True)
  found = torch.load(tmp_path / "model.pth", weights_only=True)
  assert list(found) == list(expected)
  for key, value in expected.items():
    assert found[key].dtype == value.dtype
    assert torch.equal(found[key], value), key


def test_sizes_are_read_off_the_shapes(round_trip):
  arrays, _ = round_trip
  shapes = {key: value.shape for key, value in arrays.items()}
  found = inp_former_names.read_architecture(shapes, "file")
  registers = 4 if "encoder.register_tokens" in arrays else 0
  assert found.name == f"dinov2{'reg' if registers else ''}_vit_nano_14"
  assert (found.num_registers, found.num_prototypes) == (registers, 6)


def test_converted_checkpoint_gives_all_reference_arrays(tmp_path, capsys):
  model = GOLDENS / "tiny_reg4_params.npz"
  images = GOLDENS / "tiny_reg4_forward.npz"
  assert verify.main([str(model), "--images", str(images)]) == 0
  assert capsys.readouterr().out.endswith("30 arrays checked, 0 failures\n")


def test_converted_checkpoint_scores_a_folder(dataset_root, capsys):
  folder = dataset_root / "washer" / "test"
  model = GOLDENS / "tiny_reg4_params.npz"
  sizes = ["--resize", "80", "--crop", "70"]
  assert verify.main([str(model), "--images", str(folder), *sizes]) == 0
  lines = capsys.readouterr().out.splitlines()
  assert len(lines) == 6
  assert all(0 < float(line.split()[-1]) < 2 for line in lines)


def test_converted_checkpoint_evaluates_and_trains_on(
  config, tmp_path, dataset_root
):
  official_checkpoints.to_flax(GOLDENS / "tiny_reg4_params.npz", tmp_path)
  config.data.categories = ("washer",)
  config.steps = 2
  config.model.encoder = "dinov2reg_vit_nano_14"
  # The encoder is the one that came with the checkpoint.
  config.model.encoder_weights = ""
  before = evaluate.evaluate_checkpoint(config, tmp_path)
  assert before.step == 0
  after = train.train_and_evaluate(config, tmp_path)
  assert after.step == 2
  assert not np.array_equal(after.image_scores, before.image_scores)
  losses = [
    json.loads(line)["loss"]
    for line in (tmp_path / "log.jsonl").read_text().splitlines()
  ]
  assert len(losses) == 2
  # The trained checkpoint goes back as well, with the encoder untouched.
  official_checkpoints.to_torch(tmp_path, tmp_path / "model.npz")
  found = files.read_arrays(tmp_path / "model.npz")
  original = files.read_arrays(GOLDENS / "tiny_reg4_params.npz")
  assert list(found) == list(original)
  for key, value in original.items():
    same = np.array_equal(found[key], value)
    assert same == key.startswith("encoder."), key


def test_another_encoder_is_refused(config, tmp_path):
  official_checkpoints.to_flax(GOLDENS / "tiny_noreg_params.npz", tmp_path)
  config.model.encoder_weights = ""
  config.model.encoder = "dinov2_vit_nano_14"
  config.model.num_prototypes = 5
  with pytest.raises(checkpoint.CheckpointError, match="num_prototypes: 6"):
    evaluate.evaluate_checkpoint(config, tmp_path)


def rewritten(tmp_path, change) -> pathlib.Path:
  arrays = dict(files.read_arrays(GOLDENS / "tiny_reg4_params.npz"))
  change(arrays)
  np.savez(tmp_path / "model.npz", **arrays)
  return tmp_path / "model.npz"


def test_all_mismatches_are_named_together(tmp_path, capsys):
  def change(arrays):
    arrays["decoder.3.mlp.fc9.weight"] = arrays.pop("decoder.3.mlp.fc1.weight")
    arrays["bottleneck.0.fc1.bias"] = np.zeros(7, np.float32)
    arrays["aggregation.0.norm1.weight"][3] = np.nan

  source = rewritten(tmp_path, change)
  command = ["to_flax", str(source), str(tmp_path / "run")]
  assert inp_former.main(command) == 1
  error = capsys.readouterr().err
  for word in (
    "decoder.3.mlp.fc9.weight",
    "decoder/3/mlp/fc1/kernel",
    "bottleneck.0.fc1.bias",
    "aggregation.0.norm1.weight",
  ):
    assert word in error
  assert not (tmp_path / "run").exists()


def test_file_of_another_model_is_refused(tmp_path, capsys):
  np.savez(tmp_path / "other.npz", weight=np.zeros(3, np.float32))
  command = ["to_flax", str(tmp_path / "other.npz"), str(tmp_path / "run")]
  assert inp_former.main(command) == 1
  assert "not an INP-Former checkpoint" in capsys.readouterr().err


def test_workdir_with_checkpoints_is_not_overwritten(round_trip, capsys):
  _, workdir = round_trip
  command = ["to_flax", str(GOLDENS / PARAMS[0]), str(workdir)]
  assert inp_former.main(command) == 1
  assert "has checkpoints already" in capsys.readouterr().err


def test_encoder_that_was_changed_is_refused(round_trip, tmp_path, capsys):
  _, workdir = round_trip
  encoder = tmp_path / "encoder.safetensors"
  encoder.write_bytes((workdir / "encoder.safetensors").read_bytes() + b"0")
  target = tmp_path / "model.npz"
  command = ["to_torch", str(workdir), str(target), "--encoder", str(encoder)]
  assert inp_former.main(command) == 1
  assert "sha256" in capsys.readouterr().err
  assert not target.exists()


def test_workdir_without_checkpoint_is_an_error(tmp_path, capsys):
  target = str(tmp_path / "model.npz")
  assert inp_former.main(["to_torch", str(tmp_path), target]) == 1
  assert "No checkpoint" in capsys.readouterr().err
