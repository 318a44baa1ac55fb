"""Processes that do not fit together end with what differs."""

import shutil

import pytest

from tests.faults import running

pytestmark = pytest.mark.slow


def assert_both_say(runs, *phrases: str) -> None:
  for run in runs:
    assert run.wait(120) == 1, run.text
    for phrase in phrases:
      assert phrase in run.text
    assert "Traceback" not in run.text


def test_another_seed_is_named_with_both_values(dataset_root, workdir, runs):
  config = running.small_config(dataset_root, 20)
  other = running.small_config(dataset_root, 20)
  config.seed, other.seed = 3, 4
  runs.extend(running.start_pair(config, workdir, other))
  assert_both_say(runs, "config.seed is 3 there, 4 here")
  assert not (workdir / "checkpoints").exists()


def test_other_images_are_named(dataset_root, workdir, runs, tmp_path):
  root = tmp_path / "fewer"
  shutil.copytree(dataset_root, root)
  next(root.rglob("train/good/*.png")).unlink()
  config = running.small_config(dataset_root, 20)
  other = running.small_config(root, 20)
  runs.extend(running.start_pair(config, workdir, other))
  assert_both_say(runs, "training images (count) is 18 there, 17 here")


def test_a_batch_that_the_mesh_does_not_divide_ends_both(
  dataset_root, workdir, runs
):
  config = running.small_config(dataset_root, 20)
  config.batch_size = 3
  runs.extend(running.start_pair(config, workdir))
  assert_both_say(runs, "config.batch_size is 3, which cannot be split")
