import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from inp_former_jax.training.checkpoints import checkpoint, saved_runs, workdirs

IDENTITY = {
  "batch_size": 4,
  "data": {"root": "a", "crop": 70, "categories": ("x", "y")},
  "model": {"encoder": "e", "encoder_weights": "f"},
  "encoder": {"name": "e", "sha256": "1"},
}


def abstract(tree):
  return jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), tree
  )


@pytest.fixture
def saved(tmp_path):
  params, moments = {"w": jnp.arange(6.0)}, {"m": jnp.ones(6)}
  checkpointer = checkpoint.Checkpointer(tmp_path / "c", IDENTITY)
  checkpointer.save(7, params, moments, {"next_batch": 3})
  checkpointer.wait()
  checkpointer.close()
  return tmp_path / "c", abstract(params), abstract(moments)


def test_everything_comes_back(saved):
  folder, params, moments = saved
  checkpointer = checkpoint.Checkpointer(folder, IDENTITY)
  assert checkpointer.latest_step == 7
  restored, restored_moments, iterator = checkpointer.restore(params, moments)
  np.testing.assert_array_equal(restored["w"], np.arange(6.0))
  np.testing.assert_array_equal(restored_moments["m"], np.ones(6))
  assert iterator == {"next_batch": 3}
  trainable = checkpointer.restore_trainable(params)
  np.testing.assert_array_equal(trainable["w"], np.arange(6.0))


def test_only_a_run_that_saves_removes_what_a_killed_save_left(saved):
  folder, params, moments = saved
  left = folder / "9.orbax-checkpoint-tmp"
  left.mkdir()
  checkpoint.Checkpointer(folder, IDENTITY).close()
  assert left.is_dir()
  # orbax removes it in the background, and before it saves.
  with checkpoint.Checkpointer(folder, IDENTITY, cleans_up=True) as run:
    run.save(9, {"w": jnp.ones(6)}, {"m": jnp.ones(6)}, {"next_batch": 3})
  assert not left.exists() and {p.name for p in folder.iterdir()} == {"7", "9"}


def changed(**fields):
  identity = {
    k: dict(v) if isinstance(v, dict) else v for k, v in IDENTITY.items()
  }
  for name, value in fields.items():
    section, _, field = name.partition("__")
    if field:
      identity[section][field] = value
    else:
      identity[section] = value
  return identity


def test_moved_data_and_weights_are_the_same_run(saved):
  folder, params, moments = saved
  identity = changed(data__root="b", model__encoder_weights="g")
  checkpoint.Checkpointer(folder, identity).restore(params, moments)


@pytest.mark.parametrize(
  "change", [{"encoder__sha256": "2"}, {"data__crop": 84}]
)
def test_another_encoder_or_size_is_refused_for_all_uses(saved, change):
  folder, params, moments = saved
  checkpointer = checkpoint.Checkpointer(folder, changed(**change))
  field = next(iter(change)).replace("__", ".")
  with pytest.raises(checkpoint.CheckpointError, match=field):
    checkpointer.restore(params, moments)
  with pytest.raises(checkpoint.CheckpointError, match=field):
    checkpointer.restore_trainable(params)


def test_another_batch_size_is_refused_for_training_only(saved):
  folder, params, moments = saved
  checkpointer = checkpoint.Checkpointer(folder, changed(batch_size=8))
  with pytest.raises(checkpoint.CheckpointError, match="4 there, 8 here"):
    checkpointer.restore(params, moments)
  checkpointer.restore_trainable(params)


def test_no_checkpoint_says_what_to_do(tmp_path):
  checkpointer = checkpoint.Checkpointer(tmp_path, IDENTITY)
  with pytest.raises(checkpoint.CheckpointError, match="Train a model there"):
    checkpointer.restore_trainable({})


def test_damaged_checkpoint_is_named(saved):
  folder, params, moments = saved
  for file in (folder / "7" / "trainable").rglob("*"):
    if file.is_file():
      file.write_bytes(b"")
  checkpointer = checkpoint.Checkpointer(folder, IDENTITY)
  with pytest.raises(
    checkpoint.CheckpointError, match="step 7 is damaged: .*trainable"
  ):
    checkpointer.restore(params, moments)


def full(*args, **kwargs):
  raise OSError(28, "No space left on device")


def test_failed_save_names_the_last_sound_step(saved, monkeypatch):
  folder, params, moments = saved
  checkpointer = checkpoint.Checkpointer(folder, IDENTITY)

  monkeypatch.setattr(checkpointer._manager, "save", full)
  with pytest.raises(checkpoint.CheckpointError, match="No space.*step 7"):
    checkpointer.save(8, {}, {}, {})
  assert checkpointer.latest_step == 7


def test_failed_first_save_says_that_there_is_no_checkpoint(
  tmp_path, monkeypatch
):
  checkpointer = checkpoint.Checkpointer(tmp_path, IDENTITY)

  monkeypatch.setattr(checkpointer._manager, "save", full)
  with pytest.raises(checkpoint.CheckpointError, match="There is no complete"):
    checkpointer.save(1, {}, {}, {})


def test_full_workdir_is_refused_before_training(tmp_path, monkeypatch):
  usage = workdirs.shutil.disk_usage(tmp_path)._replace(free=1_000_000)
  monkeypatch.setattr(workdirs.shutil, "disk_usage", lambda path: usage)
  with pytest.raises(
    checkpoint.CheckpointError, match="1 MB free.*20 MB.*`keep`"
  ):
    workdirs.prepare_workdir(tmp_path, needed=20_000_000)


def test_workdir_below_a_file_is_refused(tmp_path):
  (tmp_path / "file").write_text("")
  with pytest.raises(checkpoint.CheckpointError, match="cannot be written"):
    workdirs.prepare_workdir(tmp_path / "file" / "run", needed=0)


def test_read_only_workdir_is_refused(tmp_path, monkeypatch):
  # Root writes everywhere, so that a mode alone would prove nothing.
  def read_only(*args, **kwargs):
    raise OSError(30, "Read-only file system")

  monkeypatch.setattr(workdirs.tempfile, "TemporaryFile", read_only)
  with pytest.raises(checkpoint.CheckpointError, match="Read-only"):
    workdirs.prepare_workdir(tmp_path, needed=0)


@pytest.mark.parametrize("name", ["run[1]", "[!a]", "a*b", "a**b", "what?"])
def test_glob_characters_in_the_path_are_only_characters(tmp_path, name):
  params, moments = {"w": jnp.arange(6.0)}, {"m": jnp.ones(6)}
  folder = tmp_path / name / "checkpoints"
  with checkpoint.Checkpointer(folder, IDENTITY) as run:
    run.save(7, params, moments, {"next_batch": 3})
  with checkpoint.Checkpointer(folder, IDENTITY) as run:
    restored, _, _ = run.restore(abstract(params), abstract(moments))
  np.testing.assert_array_equal(restored["w"], np.arange(6.0))


@pytest.mark.parametrize("name", ["", " "])
def test_an_empty_workdir_is_not_the_current_folder(name):
  with pytest.raises(ValueError, match="`workdir` is empty"):
    workdirs.prepare_workdir(name, needed=0)


@pytest.mark.parametrize("name", ["run", "run/checkpoints"])
def test_a_file_in_place_of_a_folder_is_named(tmp_path, name):
  file = tmp_path / name
  file.parent.mkdir(exist_ok=True)
  file.write_text("")
  with pytest.raises(checkpoint.CheckpointError, match=f"{file} is a file"):
    workdirs.prepare_workdir(tmp_path / "run", needed=0)


@pytest.mark.parametrize("address", ["gs://runs/a", "s3://runs/a", "abfs://x"])
def test_buckets_are_refused_and_no_folder_is_made(
  tmp_path, monkeypatch, address
):
  monkeypatch.chdir(tmp_path)
  for use in (
    lambda: workdirs.prepare_workdir(address, needed=0),
    lambda: saved_runs.require_checkpoints(pathlib.Path(address).absolute()),
  ):
    with pytest.raises(checkpoint.CheckpointError, match="bucket.*Mount"):
      use()
  assert not list(tmp_path.iterdir())
