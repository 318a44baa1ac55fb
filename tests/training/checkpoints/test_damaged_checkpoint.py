"""No changed bit of a checkpoint is ever restored without a word."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from inp_former_jax.training.checkpoints import (
  manifest,
  saved_runs,
  sound_checkpoint,
)
from inp_former_jax.training.checkpoints.checkpoint import (
  Checkpointer,
  CheckpointError,
)

IDENTITY = {
  "model": {"encoder": "e", "num_prototypes": 6, "use_inps": True},
  "encoder": {"name": "e", "sha256": "1"},
}


def state(step: int):
  parameters = {"w": jnp.arange(6.0) + step, "b": jnp.ones((3, 40)) * step}
  return parameters, {"m": jnp.full(6, step / 8)}


def shapes(tree):
  return jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), tree
  )


ABSTRACT = shapes(state(0))


@pytest.fixture
def folder(tmp_path):
  """A workdir with checkpoints of steps 4 and 7; its folder of checkpoints."""
  path = tmp_path / "run" / "checkpoints"
  with Checkpointer(path, IDENTITY) as checkpointer:
    for step in (4, 7):
      checkpointer.save(step, *state(step), {"next_batch": step})
  sound_checkpoint._reported.clear()
  return path


def flip(path, position: int, bit: int) -> None:
  content = bytearray(path.read_bytes())
  content[position] ^= 1 << bit
  path.write_bytes(content)
  manifest._find_damage.cache_clear()  # two writes may share a time stamp


def files_of(checkpoint):
  return sorted(p for p in checkpoint.rglob("*") if p.is_file())


def assert_is(restored, step: int) -> None:
  trainable, opt_state, position = restored
  expected = state(step)
  assert jax.tree.all(
    jax.tree.map(np.array_equal, (trainable, opt_state), expected)
  )
  assert position == {"next_batch": step}


def test_every_file_is_listed_when_the_checkpoint_appears(folder):
  listed = json.loads((folder / "7" / manifest.NAME).read_text())["files"]
  found = {str(p.relative_to(folder / "7")) for p in files_of(folder / "7")}
  # What orbax writes last holds times and types.
  unlisted = {manifest.NAME, "_CHECKPOINT_METADATA", "commit_success.txt"}
  assert found - set(listed) == unlisted & found
  assert any("trainable/" in name for name in listed)
  assert any("iterator/" in name for name in listed)


def test_no_flipped_bit_alters_what_is_restored(folder, capsys):
  rng = np.random.default_rng(0)
  fallbacks = 0
  with Checkpointer(folder, IDENTITY) as checkpointer:
    for path in files_of(folder / "7"):
      sound = path.read_bytes()
      size = len(sound)
      for position in sorted({0, size - 1, *rng.integers(0, size, 4)}):
        flip(path, position, int(rng.integers(8)))
        used = checkpointer.newest_sound_step()
        fallbacks += used == 4
        # What is not listed may change; it changes no value.
        assert_is(checkpointer.restore(*ABSTRACT), used)
        path.write_bytes(sound)
    manifest._find_damage.cache_clear()
    assert_is(checkpointer.restore(*ABSTRACT), 7)
  listed = len(json.loads((folder / "7" / manifest.NAME).read_text())["files"])
  assert fallbacks >= 3 * listed  # small files have few positions
  assert "step 7 is damaged" in capsys.readouterr().err


@pytest.mark.parametrize("change", ["cut", "missing", "added", "swapped"])
def test_a_damaged_file_is_named_and_the_one_before_is_used(
  folder, change, capsys
):
  arrays = [p for p in files_of(folder / "7" / "trainable") if "/d/" in str(p)]
  file = arrays[0]
  if change == "cut":
    file.write_bytes(file.read_bytes()[:-1])
  elif change == "missing":
    file.unlink()
  elif change == "added":
    file = file.with_name("other")
    file.write_bytes(b"")
  else:
    file = folder / "7" / "iterator" / "metadata"
    shutil.copy(folder / "4" / "iterator" / "metadata", file)
  with Checkpointer(folder, IDENTITY) as checkpointer:
    assert_is(checkpointer.restore(*ABSTRACT), 4)
  error = capsys.readouterr().err
  assert error.count("Warning") == 1 and str(file) in error
  assert "The one of step 4 is used instead" in error


def test_evaluation_and_init_from_use_the_one_before(folder, capsys):
  flip(max(files_of(folder / "7"), key=lambda p: p.stat().st_size), 9, 3)
  step, saved = saved_runs.read_identity(folder.parent)
  assert step == 4 and saved["encoder.sha256"] == "1"
  step, trainable = saved_runs.restore_initial(
    folder.parent, ABSTRACT[0], IDENTITY
  )
  assert step == 4
  assert jax.tree.all(jax.tree.map(np.array_equal, trainable, state(4)[0]))
  assert capsys.readouterr().err.count("Warning") == 1  # not once per reading


def test_without_a_sound_one_the_error_names_the_file(folder):
  for step in (4, 7):
    flip(folder / str(step) / "identity" / "metadata", 5, 1)
  with Checkpointer(folder, IDENTITY) as checkpointer:
    with pytest.raises(
      CheckpointError, match="step 7 is damaged, and so are all.*identity"
    ):
      checkpointer.restore(*ABSTRACT)
    shutil.rmtree(folder / "4")
    checkpointer._manager.reload()
    with pytest.raises(CheckpointError, match="step 7 is damaged: .*identity"):
      checkpointer.restore_trainable(ABSTRACT[0])


def test_a_run_moves_the_damaged_one_aside_and_saves_it_again(folder, capsys):
  flip(folder / "7" / "identity" / "metadata", 5, 1)
  with Checkpointer(folder, IDENTITY, cleans_up=True) as run:
    assert run.newest_sound_step() == 4
    run.save(7, *state(7), {"next_batch": 7})
    run.wait()
    assert run.newest_sound_step() == 7
    assert_is(run.restore(*ABSTRACT), 7)
  aside = folder.parent / sound_checkpoint.ASIDE / "7"
  assert (aside / "identity" / "metadata").is_file()
  assert str(aside) in capsys.readouterr().err


def test_one_of_an_earlier_version_is_restored_with_a_note(folder, capsys):
  (folder / "7" / manifest.NAME).unlink()
  with Checkpointer(folder, IDENTITY) as checkpointer:
    assert_is(checkpointer.restore(*ABSTRACT), 7)
  error = capsys.readouterr().err
  assert error.count("\n") == 1 and "7 has no checksums" in error


def test_a_manifest_that_cannot_be_written_fails_the_save(folder, monkeypatch):
  def full(*args):
    raise OSError(28, "No space left on device")

  monkeypatch.setattr(manifest, "write_manifest", full)
  with Checkpointer(folder, IDENTITY) as checkpointer:
    with pytest.raises(CheckpointError, match="No space left.*step 7"):
      checkpointer.save(9, *state(9), {"next_batch": 9})
      checkpointer.wait()
  assert not (folder / "9").exists()
