"""Epochs are timed with each cache, and the devices' waiting is seen."""

import time

import jax.numpy as jnp
import pytest

from inp_former_jax.benchmarks import epochs
from inp_former_jax.benchmarks.epochs import Epoch, TrainRun
from tests.conftest import tiny_config


def test_waiting_is_the_time_between_a_step_s_end_and_the_next_one():
  clock = epochs.Clock()
  clock.start(extra=10.0)
  for _ in range(3):
    time.sleep(0.05)
    clock.begins()
    clock.ends_with(jnp.zeros(1))
    clock._results.join()  # it has ended
  clock.leave_out(4.0)
  seconds, waiting = clock.stop()
  assert 10.0 - 4.0 + 3 * 0.05 <= waiting <= seconds
  clock.start()
  clock.begins()
  time.sleep(0.2)  # the step takes so long
  clock.ends_with(jnp.zeros(1))
  seconds, waiting = clock.stop()
  assert seconds >= 0.2 and waiting < seconds - 0.19
  clock.close()


def test_table_compares_the_later_epochs():
  off = [Epoch(10, 9.0, 1.0), Epoch(10, 2.0, 1.0)]
  kept = [Epoch(10, 20.0, 19.0), Epoch(10, 0.5, 0.1)]
  table = epochs.format_table(
    [
      TrainRun("off", 5, 0.0, 1.5, tuple(off)),
      TrainRun("features", 5, 18.0, 1.5, tuple(kept)),
    ]
  )
  assert "features: 4.00 times as many images/s" in table
  row = table.splitlines()[4].split()
  assert row[:6] == ["features", "1", "10", "0.50", "20.00", "95.0%"]
  assert row[6:] == ["18.0", "s", "1.5", "s"]


def test_impossible_epochs_are_refused(dataset_root):
  config = tiny_config(dataset_root)
  with pytest.raises(
    ValueError, match="--caches is 'of'; expected some of off"
  ):
    epochs.measure(config, ["of"], 2)
  with pytest.raises(ValueError, match="--epochs is 1"):
    epochs.measure(config, ["off"], 1)


@pytest.mark.slow
def test_each_cache_is_filled_anew_and_nothing_is_left(tmp_path, dataset_root):
  config = tiny_config(dataset_root)
  config.cache_dir = str(tmp_path / "cache")
  runs = epochs.measure(config, ["off", "images", "features"], 2)
  assert [run.cache for run in runs] == ["off", "images", "features"]
  assert runs[2].preparing > max(run.preparing for run in runs[:2])
  for run in runs:
    assert run.compile_seconds > 0 and len(run.epochs) == 2
    for epoch in run.epochs:
      assert epoch.images % config.batch_size == 0 and epoch.images > 0
      assert 0 <= epoch.waiting <= epoch.seconds
  assert list((tmp_path / "cache").iterdir()) == []
