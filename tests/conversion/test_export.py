"""Runs as official checkpoints: which encoder is written, from which file."""

import shutil

import numpy as np
import pytest
from flax import nnx

from inp_former_jax import train
from inp_former_jax.inference import scoring
from inp_former_jax.models import vit
from inp_former_jax.training.checkpoints import checkpoint
from inp_former_jax.weights import dinov2_names, dinov2_rules, files, sources
from inp_former_jax.weights.encoders import DEMO_ENCODER, get_encoder
from tests.conftest import GOLDENS, tiny_config
from weights_conversion import inp_former, official_checkpoints, verify

FEMTO = "dinov2reg_vit_femto_14"
ADDED = ["encoder.mask_token", "encoder.norm.weight", "encoder.norm.bias"]


def one_step_config(root, encoder: str, weights: str):
  config = tiny_config(root)
  config.data.categories = ("washer",)
  config.model.encoder, config.model.encoder_weights = encoder, weights
  config.steps = 1
  return config


@pytest.fixture(scope="module")
def bundled_run(dataset_root, tmp_path_factory):
  """The workdir of a run on the bundled encoder, and its result."""
  config = one_step_config(dataset_root, DEMO_ENCODER, "")
  # The size of the maps by which the scores of a model file are computed.
  config.evaluation.size = scoring.EVALUATION_SIZE
  workdir = tmp_path_factory.mktemp("bundled") / "run"
  return workdir, train.train_and_evaluate(config, workdir)


def write_encoder(path, seed: int) -> None:
  """Writes an encoder without the arrays that are never run."""
  spec = get_encoder(FEMTO)
  model = vit.VisionTransformer(
    spec.variant, spec.num_registers, rngs=nnx.Rngs(seed)
  )
  files.write_arrays(path, dinov2_rules.named_arrays(nnx.state(model)))


@pytest.fixture(scope="module")
def run_on_a_file(dataset_root, tmp_path_factory):
  """The workdir of a run on an encoder's file, and that file."""
  folder = tmp_path_factory.mktemp("on_a_file")
  encoder = folder / "mine.safetensors"
  write_encoder(encoder, seed=1)
  config = one_step_config(dataset_root, FEMTO, str(encoder))
  train.train_and_evaluate(config, folder / "run")
  return folder / "run", encoder


@pytest.fixture
def moved(run_on_a_file, tmp_path, monkeypatch):
  """A run whose encoder's file was moved: its workdir, old and new path."""
  workdir, encoder = run_on_a_file
  monkeypatch.setenv("INP_FORMER_CACHE", str(tmp_path / "cache"))
  (tmp_path / "cache").mkdir()
  elsewhere = encoder.rename(tmp_path / "elsewhere.safetensors")
  yield workdir, encoder, elsewhere
  elsewhere.replace(encoder)


def export(workdir, target, *options) -> int:
  return inp_former.main(["to_torch", str(workdir), str(target), *options])


def assert_encoder_is_exported(target, encoder, name: str) -> None:
  """Checks keys, order, shapes, dtypes and values of the encoder's arrays."""
  found = {
    key: value
    for key, value in files.read_arrays(target).items()
    if key.startswith("encoder.")
  }
  variant = get_encoder(name).variant
  sizes = dinov2_names.EncoderSizes(
    variant.width, variant.depth, get_encoder(name).num_registers
  )
  expected = dinov2_names.encoder_shapes(sizes)
  assert {key: value.shape for key, value in found.items()} == {
    f"encoder.{key}": shape for key, shape in expected.items()
  }
  assert list(found) == [f"encoder.{key}" for key in expected]
  assert all(value.dtype == np.float32 for value in found.values())
  arrays = files.read_arrays(encoder)
  for key, value in arrays.items():
    np.testing.assert_array_equal(found[f"encoder.{key}"], value, key)
  assert [key for key in found if key[len("encoder.") :] not in arrays] == ADDED


def test_the_bundled_encoder_needs_no_file(bundled_run, tmp_path, monkeypatch):
  def refuse(*_, **__):
    raise AssertionError("no network, please")

  monkeypatch.setattr("socket.socket.connect", refuse)
  workdir, _ = bundled_run
  target = tmp_path / "model.npz"
  assert export(workdir, target) == 0
  bundled = sources.bundled(DEMO_ENCODER).path
  assert_encoder_is_exported(target, bundled, DEMO_ENCODER)
  # The original's keys in its order, but for the blocks a student lacks.
  original = files.read_arrays(GOLDENS / "tiny_noreg_params.npz")
  later = ("encoder.blocks.10.", "encoder.blocks.11.")
  assert list(files.read_arrays(target)) == [
    key for key in original if not key.startswith(later)
  ]


def test_an_exported_run_scores_as_the_run(
  bundled_run, dataset_root, tmp_path, capsys
):
  workdir, result = bundled_run
  target = tmp_path / "model.safetensors"
  assert export(workdir, target) == 0
  assert "the checkpoint of step 1" in capsys.readouterr().out
  folder = dataset_root / "washer" / "test"
  command = ["--images", str(folder), "--resize", "80", "--crop", "70"]
  assert verify.main([str(target), *command]) == 0
  lines = capsys.readouterr().out.splitlines()
  found = sorted(float(line.split()[-1]) for line in lines)
  # Printed with 6 decimals.
  np.testing.assert_allclose(found, sorted(result.image_scores), atol=2e-6)


def test_the_bundled_encoder_goes_into_a_pth_file(bundled_run, tmp_path):
  torch = pytest.importorskip("torch")
  workdir, _ = bundled_run
  assert export(workdir, tmp_path / "model.pth") == 0
  assert export(workdir, tmp_path / "model.npz") == 0
  found = torch.load(tmp_path / "model.pth", weights_only=True)
  expected = files.read_arrays(tmp_path / "model.npz")
  assert list(found) == list(expected)
  for key, value in found.items():
    assert value.dtype == torch.float32
    np.testing.assert_array_equal(value.numpy(), expected[key], key)


def test_what_an_encoder_lacks_is_added_and_does_nothing():
  golden = {
    key.removeprefix("encoder."): value
    for key, value in files.read_arrays(
      GOLDENS / "tiny_reg4_params.npz"
    ).items()
    if key.startswith("encoder.")
  }
  never_run = ("mask_token", "norm.", "blocks.10.", "blocks.11.")
  run = {k: v for k, v in golden.items() if not k.startswith(never_run)}
  spec = get_encoder("dinov2reg_vit_nano_14")
  found = official_checkpoints.whole_encoder(run, spec)
  assert list(found) == list(golden)
  ones = {"norm.weight"}
  ones |= {f"blocks.{i}.norm{j}.weight" for i in (10, 11) for j in (1, 2)}
  for key, value in found.items():
    assert (value.shape, value.dtype) == (golden[key].shape, np.float32), key
    expected = run.get(key, float(key in ones))
    assert (value == expected).all(), key


def test_the_file_that_the_run_recorded_is_found(run_on_a_file, tmp_path):
  workdir, encoder = run_on_a_file
  assert export(workdir, tmp_path / "model.npz") == 0
  assert_encoder_is_exported(tmp_path / "model.npz", encoder, FEMTO)


@pytest.mark.parametrize("place", ["workdir", "cache", "--encoder"])
def test_a_file_that_was_moved_is_found(place, moved, tmp_path):
  run, recorded, elsewhere = moved
  workdir = tmp_path / "run"
  shutil.copytree(run, workdir)
  write_encoder(recorded, seed=2)  # another one in its old place
  options = []
  if place == "workdir":
    shutil.copy(elsewhere, workdir / "encoder.safetensors")
  elif place == "cache":
    shutil.copy(elsewhere, tmp_path / "cache" / f"{FEMTO}.safetensors")
  else:
    options = ["--encoder", str(elsewhere)]
  assert export(workdir, tmp_path / "model.npz", *options) == 0
  assert_encoder_is_exported(tmp_path / "model.npz", elsewhere, FEMTO)


def test_a_file_that_is_nowhere_is_asked_for(moved, tmp_path, capsys):
  workdir, recorded, elsewhere = moved
  target = tmp_path / "model.npz"
  assert export(workdir, target) == 1
  error = capsys.readouterr().err
  sha256 = files.file_sha256(elsewhere)
  for words in (
    str(workdir / "encoder.safetensors"),
    str(recorded),
    f"{FEMTO} with sha256 {sha256}",
    "--encoder FILE",
  ):
    assert words in error
  assert export(workdir, target, "--encoder", str(recorded)) == 1
  error = capsys.readouterr().err
  assert f"{recorded} does not exist" in error and sha256 in error
  assert not target.exists()


def test_files_of_other_encoders_are_all_named(moved, tmp_path, capsys):
  workdir, recorded, elsewhere = moved
  cached = tmp_path / "cache" / f"{FEMTO}.safetensors"
  for path in (recorded, cached):
    write_encoder(path, seed=2)
  assert export(workdir, tmp_path / "model.npz") == 1
  error = capsys.readouterr().err
  other = files.file_sha256(cached)
  for words in (
    f"{recorded} has the sha256 {other}",
    f"{cached} has the sha256 {other}",
    f"{FEMTO} with sha256 {files.file_sha256(elsewhere)}",
    "--encoder FILE",
  ):
    assert words in error


def test_a_random_encoder_is_not_exported(tmp_path, capsys):
  identity = {
    "model": {"encoder": FEMTO, "num_prototypes": 6, "use_inps": True},
    "encoder": {"name": FEMTO, "sha256": "random"},
  }
  state = {"x": np.zeros(2, np.float32)}
  folder = tmp_path / "checkpoints"
  with checkpoint.Checkpointer(folder, identity) as checkpointer:
    checkpointer.save(1, state, state, {"next_batch": 1})
  assert export(tmp_path, tmp_path / "model.npz") == 1
  assert "random encoder" in capsys.readouterr().err
