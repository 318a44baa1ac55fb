"""Checkpoints in a bucket, on a server on loopback that stands for GCS."""

import json
import sys

import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

from inp_former_jax import field_ranges
from inp_former_jax.configs import common
from inp_former_jax.training.checkpoints import (
  checkpoint,
  manifest,
  place,
  saved_runs,
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


def test_an_address_that_orbax_takes_for_a_pattern_is_refused(tmp_path):
  with pytest.raises(CheckpointError, match="for a pattern"):
    place.of_run("gs://bucket/run[1]", tmp_path)


def test_without_gcsfs_the_extra_is_named(tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, "gcsfs", None)
  with pytest.raises(CheckpointError, match=r"pip install .*\[gcs\]"):
    place.of_run("gs://bucket/run", tmp_path)
