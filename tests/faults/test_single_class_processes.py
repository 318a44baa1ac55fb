"""A model for each category, trained by two processes: to the end, stopped."""

import json
import signal

import numpy as np
import pytest

from tests.faults import running
from tests.test_train import trained_arrays

pytestmark = [pytest.mark.slow, pytest.mark.long]
FIRST, SECOND = CATEGORIES = ("board", "washer")
STEPS = 24  # enough to stop at one of them, few enough to compare the ends


@pytest.fixture(scope="module")
def config(dataset_root):
  config = running.small_config(dataset_root, STEPS)
  config.protocol = "single_class"
  config.data.categories = CATEGORIES
  return config


@pytest.fixture(scope="module")
def whole(config, tmp_path_factory):
  """The workdir of two processes that nothing has stopped."""
  workdir = tmp_path_factory.mktemp("whole")
  pair = running.start_pair(config, workdir)
  try:
    assert_finished(*pair)
  finally:
    running.stop(*pair)
  return workdir


def assert_finished(*runs: running.Run) -> None:
  for run in runs:
    assert run.wait() == 0, run.text
    assert "Traceback" not in run.text


def stop_in(category: str, config, workdir, runs) -> int:
  """Stops two processes within a category; returns the step of that."""
  pair = running.start_pair(config, workdir)
  runs.extend(pair)
  running.wait_for_step(3, workdir / category, *pair)
  pair[1].process.send_signal(signal.SIGTERM)
  steps = {running.assert_stopped(run, 143, "SIGTERM") for run in pair}
  assert len(steps) == 1
  (step,) = steps
  assert 3 <= step < STEPS
  assert running.checkpoints(workdir / category) == [step]
  assert not (workdir / "metrics.json").exists()
  return step


def metrics(workdir) -> dict[str, dict[str, float]]:
  """What the report says of each category."""
  return json.loads((workdir / "metrics.json").read_text())["categories"]


def assert_near(workdir, expected) -> None:
  """Compares the ends of runs on another number of devices, in float32.

  Each device sums over its own rows of a batch, so that sums are rounded
  otherwise, by 1e-7; training amplifies that to 1e-5 in the losses. Where two
  scores are nearly equal they may change places, which moves the area under a
  curve by the share of one pixel of a 32 x 32 map, 1e-3.
  """
  for category in CATEGORIES:
    losses, whole = (
      [json.loads(line)["loss"] for line in log.read_text().splitlines()]
      for log in (
        folder / category / "log.jsonl" for folder in (workdir, expected)
      )
    )
    assert len(losses) == STEPS and losses[-1] < losses[0]
    np.testing.assert_allclose(losses, whole, rtol=1e-4)
  found, whole = metrics(workdir), metrics(expected)
  assert list(found) == list(whole) == list(CATEGORIES)
  for category in CATEGORIES:
    assert found[category] == pytest.approx(whole[category], abs=1e-3)


def assert_same_bits(workdir, expected) -> None:
  assert metrics(workdir) == metrics(expected)
  for category in CATEGORIES:
    own, other = workdir / category, expected / category
    scores = "test_scores.csv"
    assert (own / scores).read_bytes() == (other / scores).read_bytes()
    found, whole = trained_arrays(own, STEPS), trained_arrays(other, STEPS)
    assert found.keys() == whole.keys() and len(found) > 200
    for key, value in whole.items():
      np.testing.assert_array_equal(found[key], value, err_msg=key)


def test_two_processes_give_the_metrics_of_one(config, whole, workdir, runs):
  assert list(metrics(whole)) == list(CATEGORIES)
  one = running.start(config, workdir)
  runs.append(one)
  assert_finished(one)
  assert_near(workdir, whole)


def test_a_stop_in_the_second_category_resumes_there_bit_for_bit(
  config, whole, workdir, runs
):
  stopped_at = stop_in(SECOND, config, workdir, runs)
  first = {
    path: path.stat().st_mtime_ns for path in (workdir / FIRST).rglob("*")
  }
  pair = running.start_pair(config, workdir)
  runs.extend(pair)
  assert_finished(*pair)
  assert f"Category 2 of 2: {SECOND}" in pair[0].text
  assert "Category 1 of 2" not in pair[0].text
  assert f"Resumed at step {stopped_at} of {STEPS}." in pair[0].text
  for path, time in first.items():
    # Neither trained nor evaluated again.
    assert path.stat().st_mtime_ns == time, path
  assert_same_bits(workdir, whole)


def test_a_stop_in_the_first_category_is_resumed_by_one_process(
  config, whole, workdir, runs
):
  stopped_at = stop_in(FIRST, config, workdir, runs)
  assert not (workdir / SECOND).exists()
  one = running.start(config, workdir)
  runs.append(one)
  assert_finished(one)
  assert f"Resumed at step {stopped_at} of {STEPS}." in one.text
  assert f"Category 2 of 2: {SECOND}" in one.text
  assert_near(workdir, whole)
