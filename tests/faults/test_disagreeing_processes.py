"""Processes that do not fit together end with what differs."""

import shutil

import pytest

from tests.faults import running

pytestmark = pytest.mark.slow


def assert_all_say(runs, *phrases: str) -> None:
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
  assert_all_say(runs, "config.seed is 3 there, 4 here")
  assert not (workdir / "checkpoints").exists()


def test_other_images_are_named(dataset_root, workdir, runs, tmp_path):
  root = tmp_path / "fewer"
  shutil.copytree(dataset_root, root)
  next(root.rglob("train/good/*.png")).unlink()
  config = running.small_config(dataset_root, 20)
  other = running.small_config(root, 20)
  runs.extend(running.start_pair(config, workdir, other))
  assert_all_say(runs, "training images (count) is 18 there, 17 here")


def test_a_category_that_only_one_host_can_test_is_noticed_before_the_first(
  dataset_root, workdir, runs, tmp_path
):
  root = tmp_path / "fewer"
  shutil.copytree(dataset_root, root)
  shutil.rmtree(root / "board" / "test")
  config = running.small_config(dataset_root, 20)
  other = running.small_config(root, 20)
  config.protocol = other.protocol = "single_class"
  runs.extend(running.start_pair(config, workdir, other))
  assert_all_say(runs, "test images (count) is 18 there, 12 here")
  assert not (workdir / "board").exists()


def test_a_batch_that_the_mesh_does_not_divide_ends_both(
  dataset_root, workdir, runs
):
  config = running.small_config(dataset_root, 20)
  config.batch_size = 3
  runs.extend(running.start_pair(config, workdir))
  assert_all_say(runs, "config.batch_size is 3, which cannot be split")


def test_too_few_processes_end_within_the_time_to_join(
  dataset_root, workdir, runs
):
  config = running.small_config(dataset_root, 20)
  port = running.free_port()
  for index in range(2):
    flags = running.pair_flags(port, index, count=3)
    runs.append(running.start(config, workdir, *flags, "--join_timeout=5"))
  assert_all_say(runs, "1 of 3 processes did not come", "--process_id=2")


def test_an_absent_coordinator_ends_a_process(dataset_root, workdir, runs):
  config = running.small_config(dataset_root, 20)
  port = running.free_port()
  flags = [*running.pair_flags(port, 1), "--join_timeout=2"]
  runs.append(running.start(config, workdir, *flags))
  assert_all_say(runs, f"could not reach process 0 at 127.0.0.1:{port}")
