"""Training that starts from the parameters of another run."""

import os
import shutil
import subprocess
import sys

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from inp_former_jax import config_files, protocols, train
from inp_former_jax.training import loop
from inp_former_jax.training.identity import CheckpointError
from tests.conftest import GOLDENS, ROOT, tiny_config
from weights_conversion import official_checkpoints


@pytest.fixture(scope="module")
def source(dataset_root, tmp_path_factory):
  """The workdir of a finished run of two steps."""
  workdir = tmp_path_factory.mktemp("source")
  config = tiny_config(dataset_root)
  config.steps, config.data.categories = 2, ("cloth",)
  protocols.train_and_evaluate(config, workdir)
  return workdir


@pytest.fixture
def further(config, source):
  """The config of a run on another category that starts from `source`."""
  config.data.categories = ("washer",)
  config.steps, config.init_from = 1, str(source)
  return config


def saved_parameters(workdir, step: int) -> dict[str, np.ndarray]:
  path = workdir / "checkpoints" / str(step) / "trainable"
  leaves = jax.tree_util.tree_leaves_with_path(
    ocp.StandardCheckpointer().restore(path)
  )
  return {jax.tree_util.keystr(k): np.asarray(v) for k, v in leaves}


@pytest.fixture
def starts(monkeypatch):
  """(step, parameters, optimizer's state) with which every run starts."""
  found = []
  original = loop.start_or_resume

  def start_or_resume(*args):
    start, (trainable, opt_state) = original(*args)
    leaves = jax.tree_util.tree_leaves_with_path(trainable)
    trained = {jax.tree_util.keystr(k): np.array(v) for k, v in leaves}
    found.append((start, trained, jax.tree.map(np.array, opt_state)))
    return start, (trainable, opt_state)

  monkeypatch.setattr(loop, "start_or_resume", start_or_resume)
  return found


def test_it_starts_at_step_0_with_exactly_the_parameters_of_the_source(
  further, source, starts, tmp_path, capsys
):
  # More images, other sizes and another dtype are no hindrance.
  further.data.categories = ("washer", "board")
  further.data.resize = further.data.crop = 84
  further.model.dtype = "bfloat16"
  result = protocols.train_and_evaluate(further, tmp_path / "run")
  assert f"Starting from step 2 of {source}." in capsys.readouterr().out
  ((start, trained, opt_state),) = starts
  expected = saved_parameters(source, 2)
  assert start == 0 and len(trained) == len(expected) > 50
  for value, (name, saved) in zip(
    trained.values(), expected.items(), strict=True
  ):
    np.testing.assert_array_equal(value, saved, err_msg=name)
  assert not any(np.any(x) for x in jax.tree.leaves(opt_state))
  assert result.step == 1
  # It has been trained further.
  after = saved_parameters(tmp_path / "run", 1)
  assert any((after[name] != expected[name]).any() for name in after)
  assert config_files.load_config(tmp_path / "run").init_from == str(source)


def test_its_own_checkpoint_is_resumed_without_the_source(
  further, source, starts, tmp_path, capsys
):
  copy = tmp_path / "copy"
  shutil.copytree(source, copy)
  further.init_from = str(copy)
  further.checkpoint.every_steps, further.steps = 1, 2
  protocols.train_and_evaluate(further, tmp_path / "run")
  shutil.rmtree(tmp_path / "run" / "checkpoints" / "2")
  shutil.rmtree(copy)
  capsys.readouterr()
  protocols.train_and_evaluate(further, tmp_path / "run")
  text = capsys.readouterr().out
  assert "Resumed at step 1 of 2." in text and "Starting from" not in text
  assert [start for start, *_ in starts] == [0, 1]


def test_it_is_part_of_the_runs_identity(further, source, tmp_path):
  protocols.train_and_evaluate(further, tmp_path / "run")
  further.init_from = ""
  with pytest.raises(CheckpointError, match=f"init_from: '{source}' there, ''"):
    protocols.train_and_evaluate(further, tmp_path / "run")


@pytest.mark.parametrize(
  "field, value, words",
  [
    ("model.num_prototypes", 5, "model.num_prototypes: 6 there, 5 here"),
    ("model.use_inps", False, "model.use_inps: True there, False here"),
    (
      "model.encoder",
      "dinov2_vit_nano_14",
      "encoder.name: 'dinov2reg_vit_femto_14' there, 'dinov2_vit_nano_14' here",
    ),
    ("seed", 2, "seed: 1 there, 2 here"),  # of the random encoder
  ],
)
def test_another_model_is_refused(
  further, source, tmp_path, field, value, words
):
  further.update_from_flattened_dict({field: value})
  with pytest.raises(CheckpointError) as caught:
    protocols.train_and_evaluate(further, tmp_path / "run")
  message = str(caught.value)
  assert f"Training cannot start from {source}/checkpoints/2" in message
  assert "which config.init_from names" in message
  assert words in message and "data.crop" not in message
  assert "config.model.encoder_weights" in message


@pytest.mark.parametrize("exists", [True, False])
def test_a_folder_without_checkpoints_is_named(further, tmp_path, exists):
  folder = tmp_path / "empty"
  if exists:
    folder.mkdir()
  further.init_from = str(folder)
  with pytest.raises(CheckpointError, match=f"No checkpoint in {folder}"):
    protocols.train_and_evaluate(further, tmp_path / "run")


@pytest.mark.slow
def test_a_converted_checkpoint_is_a_source(config, starts, tmp_path, capsys):
  source = tmp_path / "converted"
  official_checkpoints.to_flax(GOLDENS / "tiny_noreg_params.npz", source)
  config.init_from = str(source)
  config.model.encoder, config.steps = "dinov2_vit_nano_14", 1
  with pytest.raises(
    CheckpointError, match="encoder.sha256.*(?s:.*)safetensors"
  ):
    protocols.train_and_evaluate(config, tmp_path / "random")
  config.model.encoder_weights = str(source / "encoder.safetensors")
  protocols.train_and_evaluate(config, tmp_path / "run")
  assert f"Starting from step 0 of {source}." in capsys.readouterr().out
  trained = list(starts[-1][1].values())
  for value, saved in zip(
    trained, saved_parameters(source, 0).values(), strict=True
  ):
    np.testing.assert_array_equal(value, saved)


def test_zero_shot_does_not_train(further, tmp_path):
  further.protocol = "zero_shot"
  with pytest.raises(ValueError, match="config.zero_shot_checkpoint instead"):
    protocols.train_and_evaluate(further, tmp_path)


def test_relative_paths_are_made_absolute(config, source, monkeypatch):
  monkeypatch.chdir(source.parent)
  config.init_from = source.name
  assert config_files.with_absolute_paths(config).init_from == str(source)


@pytest.mark.slow
def test_every_category_starts_from_its_own_or_from_the_whole(
  config, source, tmp_path, monkeypatch
):
  config.protocol, config.data.categories = "single_class", ("washer", "board")
  folder = tmp_path / "single"
  shutil.copytree(source, folder / "washer")
  shutil.copytree(source / "checkpoints", folder / "checkpoints")
  config.init_from = str(folder)
  sources = {}
  original = train.train_and_evaluate

  def run(own, workdir, **options):
    (category,) = own.data.categories
    sources[category] = own.init_from
    own.steps = 1
    return original(own, workdir, **options)

  monkeypatch.setattr(train, "train_and_evaluate", run)
  protocols.train_and_evaluate(config, tmp_path / "run")
  assert sources == {"board": str(folder), "washer": str(folder / "washer")}


PROGRAM = """
import pathlib, sys
import jax
import numpy as np
from inp_former_jax import config_files, experiment, sharding
from inp_former_jax.training.checkpoints import saved_runs
workdir = pathlib.Path(sys.argv[1])
config = config_files.load_config(workdir)
mesh = sharding.make_mesh(data=2, fsdp=2)
model = experiment.create_model(config, mesh, workdir)
step, trainable = saved_runs.restore_initial(
  workdir,
  model.abstract_trainable,
  config.to_dict()
  | {"encoder": {"name": config.model.encoder, "sha256": model.encoder_sha256}},
)
wanted = jax.tree.map(lambda x: x.sharding, model.abstract_trainable)
found = jax.tree.map(lambda x: x.sharding, trainable)
assert jax.tree.leaves(wanted) == jax.tree.leaves(found)
split = [s for s in jax.tree.leaves(found) if "fsdp" in str(s.spec)]
print(step, len(split) > 20, sum(float(np.abs(np.asarray(x)).sum())
  for x in jax.tree.leaves(trainable)))
"""


@pytest.mark.slow
def test_it_is_restored_to_the_shardings_of_the_run(source):
  done = subprocess.run(
    [sys.executable, "-c", PROGRAM, str(source)],
    cwd=ROOT,
    env=os.environ | {"JAX_NUM_CPU_DEVICES": "4"},
    capture_output=True,
    text=True,
    timeout=300,
  )
  assert done.returncode == 0, done.stderr
  step, split, total = done.stdout.split()
  saved = saved_parameters(source, 2).values()
  assert (step, split) == ("2", "True")
  expected = sum(float(np.abs(value).sum()) for value in saved)
  assert float(total) == pytest.approx(expected, rel=1e-6)
