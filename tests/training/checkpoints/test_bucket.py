"""Checkpoints in a bucket, on a server on loopback that stands for GCS."""

import json
import sys

import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

from inp_former_jax import checkpointing, field_ranges
from inp_former_jax.configs import common
from inp_former_jax.training.checkpoints import (
  checkpoint,
  manifest,
  place,
  saved_runs,
  sound_checkpoint,
)
from inp_former_jax.training.identity import CheckpointError
from tests.training.checkpoints.test_checkpoint import IDENTITY, abstract


@pytest.fixture
def folder(bucket, tmp_path):
  return f"{bucket}/{tmp_path.name}/run"


def save(folder, tmp_path, *steps):
  directory = place.of_run(folder, tmp_path)
  with checkpoint.Checkpointer(directory, IDENTITY, cleans_up=True) as run:
    for step in steps:
      params, moments = {"w": jnp.arange(6.0) + step}, {"m": jnp.ones(6)}
      run.save(step, params, moments, {"next_batch": step})
  return directory, abstract(params), abstract(moments)


def test_everything_comes_back(folder, tmp_path):
  directory, params, moments = save(folder, tmp_path, 1, 2, 3)
  with checkpoint.Checkpointer(directory, IDENTITY) as run:
    assert run.steps == [2, 3]
    restored, restored_moments, iterator = run.restore(params, moments)
  np.testing.assert_array_equal(restored["w"], np.arange(6.0) + 3)
  np.testing.assert_array_equal(restored_moments["m"], np.ones(6))
  assert iterator == {"next_batch": 3}
  assert not any(tmp_path.iterdir())


def test_a_damaged_one_is_named_and_moved_aside(folder, tmp_path, capsys):
  directory, params, moments = save(folder, tmp_path, 1, 2)
  listed = json.loads((directory / "2" / manifest.NAME).read_text())["files"]
  name = max(listed, key=lambda name: "trainable" in name and "/d/" in name)
  content = bytearray((directory / "2" / name).read_bytes())
  content[len(content) // 2] ^= 4
  (directory / "2" / name).write_bytes(content)
  with checkpoint.Checkpointer(directory, IDENTITY, cleans_up=True) as run:
    restored, _, _ = run.restore(params, moments)
    assert run.steps == [1]
  np.testing.assert_array_equal(restored["w"], np.arange(6.0) + 1)
  said = capsys.readouterr().err
  assert f"{directory / '2' / name} no longer has its sha256" in said
  aside = epath.Path(f"{folder}_damaged/2")
  assert str(aside) in said
  assert (aside / name).read_bytes() == content
  assert not (directory / "2").exists()


def test_a_save_that_was_killed_is_no_checkpoint(folder, tmp_path):
  directory, params, moments = save(folder, tmp_path, 1, 2)
  (directory / "2" / "commit_success.txt").unlink()
  with checkpoint.Checkpointer(directory, IDENTITY) as run:
    assert run.steps == [1]
  save(folder, tmp_path, 2)
  with checkpoint.Checkpointer(directory, IDENTITY) as run:
    assert run.steps == [1, 2]
    restored, _, _ = run.restore(params, moments)
  np.testing.assert_array_equal(restored["w"], np.arange(6.0) + 2)


def test_the_workdir_records_the_place(folder, tmp_path):
  directory, _, _ = save(folder, tmp_path, 5)
  record = {"protocol": "multi_class", "checkpoint": {"folder": folder}}
  (tmp_path / "config.json").write_text(json.dumps(record))
  assert place.of_workdir(tmp_path) == directory
  step, found = saved_runs.read_identity(tmp_path)
  assert step == 5 and found["model.encoder"] == "e"


@pytest.mark.parametrize(
  "address", ["s3://b/run", "gs://b", "gs://b/", "b/run", "gs://b//run", "gs:"]
)
def test_another_address_is_refused(address):
  config = common.get_config()
  config.checkpoint.folder = address
  with pytest.raises(ValueError, match=r"config\.checkpoint\.folder.*gs://"):
    field_ranges.check_fields(config)


@pytest.mark.parametrize("name", ["run[1]", "run#1", "run?", "*"])
def test_characters_with_a_meaning_are_refused(tmp_path, name):
  with pytest.raises(CheckpointError, match="meanings of their own"):
    place.of_run(f"gs://bucket/{name}", tmp_path)


@pytest.mark.parametrize("name", ["notes/a.txt", "01/5/trainable/d", "3/a/b"])
def test_a_folder_with_anything_else_is_refused(folder, tmp_path, name):
  directory, _, _ = save(folder, tmp_path, 1)
  (directory / "note.txt").write_text("orbax leaves files alone")
  place.prepare(directory)
  other = directory / name
  other.write_text("another's")
  with pytest.raises(CheckpointError, match="would be removed"):
    place.prepare(directory)
  assert other.read_text() == "another's"


def test_a_failing_connection_is_no_damage(folder, tmp_path, monkeypatch):
  directory, _, _ = save(folder, tmp_path, 1, 2)

  def fail(place):
    raise ConnectionResetError("reset by peer")

  monkeypatch.setattr(place, "files", fail)
  with pytest.raises(CheckpointError, match="reset by peer"):
    sound_checkpoint.choose(directory, [2, 1])
  assert (directory / "2").is_dir()


def test_a_run_does_not_leave_its_checkpoints_behind(folder, tmp_path):
  config = common.get_config()
  config.checkpoint.folder = folder
  local = tmp_path / "checkpoints"
  (local / "9.orbax-checkpoint-tmp").mkdir(parents=True)
  with checkpointing.open_for_run(config, tmp_path, IDENTITY) as run:
    assert run.steps == []
  (local / "5").mkdir()
  with pytest.raises(CheckpointError, match="Set `folder` as it was"):
    checkpointing.open_for_run(config, tmp_path, IDENTITY)


def test_without_gcsfs_the_extra_is_named(tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, "gcsfs", None)
  with pytest.raises(CheckpointError, match=r"pip install .*\[gcs\]"):
    place.of_run("gs://bucket/run", tmp_path)
