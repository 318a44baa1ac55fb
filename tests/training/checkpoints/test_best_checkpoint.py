"""The best checkpoint is kept beside the newest ones."""

import json

import jax
import jax.numpy as jnp
import pytest

from inp_former_jax.training.checkpoints import best_checkpoint, saved_runs
from inp_former_jax.training.checkpoints.best_checkpoint import BestCheckpoint
from inp_former_jax.training.checkpoints.checkpoint import (
  Checkpointer,
  CheckpointError,
)

METRIC = "image_auroc"
VALUES = {1: 0.5, 2: 0.9, 3: float("nan"), 4: 0.9, 5: 0.8, 6: 0.95, 7: 0.1}


def trained(workdir, steps, *, keep=2, metric=METRIC):
  """Saves and evaluates each step, as a run does."""
  best = BestCheckpoint(workdir, metric)
  folder = workdir / "checkpoints"
  with Checkpointer(folder, {}, keep=keep, best=best) as checkpointer:
    best.forget_after(checkpointer.latest_step or 0)
    for step in steps:
      arrays = {"w": jnp.full(3, step)}
      checkpointer.save(step, arrays, arrays, {"next_batch": step})
      best.note(step, {METRIC: VALUES[step], "pixel_ap": 1.0 - VALUES[step]})
  return sorted(int(p.name) for p in folder.iterdir() if p.name.isdigit())


def test_the_best_is_kept_beside_the_newest(tmp_path):
  assert trained(tmp_path, range(1, 6)) == [2, 4, 5]  # of equal ones, the first
  step, _ = saved_runs.read_identity(tmp_path, saved_runs.BEST)
  assert step == 2
  assert saved_runs.read_identity(tmp_path)[0] == 5
  # A resumed run knows what was best, and a better one replaces it.
  assert trained(tmp_path, [6, 7]) == [6, 7]
  assert saved_runs.read_identity(tmp_path, saved_runs.BEST)[0] == 6
  noted = json.loads((tmp_path / best_checkpoint.NAME).read_text())
  assert noted["metric"] == METRIC and "3" not in noted["values"]


def test_the_best_one_is_restored(tmp_path):
  trained(tmp_path, range(1, 6))
  shape = jax.ShapeDtypeStruct(
    (3,),
    jnp.int32,
    sharding=jax.sharding.SingleDeviceSharding(jax.devices()[0]),
  )
  with Checkpointer(tmp_path / "checkpoints", {}) as checkpointer:
    restored = checkpointer.restore_trainable({"w": shape}, 2)
  assert restored["w"].tolist() == [2, 2, 2]


def test_a_damaged_best_one_is_replaced_by_the_next_best(tmp_path, capsys):
  trained(tmp_path, range(1, 6))
  (tmp_path / "checkpoints" / "2" / "identity" / "metadata").write_text("[]")
  assert saved_runs.read_identity(tmp_path, saved_runs.BEST)[0] == 4
  assert "step 2 is damaged" in capsys.readouterr().err


def test_another_metric_begins_anew(tmp_path):
  trained(tmp_path, [1, 2])
  trained(tmp_path, [3, 4, 5], metric="pixel_ap")
  assert saved_runs.read_identity(tmp_path, saved_runs.BEST)[0] == 5


def test_values_after_the_resumed_step_are_forgotten(tmp_path):
  trained(tmp_path, [1, 2])
  best = BestCheckpoint(tmp_path, METRIC)
  best.forget_after(1)
  assert best_checkpoint.ranked_steps(tmp_path, [1, 2]) == [1]


def test_no_value_and_an_unknown_use_are_refused(tmp_path):
  trained(tmp_path, [3])
  with pytest.raises(CheckpointError, match="Train with `best`=METRIC"):
    saved_runs.read_identity(tmp_path, saved_runs.BEST)
  with pytest.raises(ValueError, match="`use` is 'last'; it can be newest or"):
    saved_runs.read_identity(tmp_path, "last")


def test_a_record_that_cannot_be_read_is_named(tmp_path):
  (tmp_path / best_checkpoint.NAME).write_text("{")
  with pytest.raises(CheckpointError, match="best.json cannot be read"):
    BestCheckpoint(tmp_path, METRIC)
