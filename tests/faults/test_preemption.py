"""SIGTERM and SIGINT: saved, said in a line, resumed bit for bit."""

import json
import signal

import numpy as np
import pytest

from tests.faults import running
from tests.test_train import trained_arrays

pytestmark = pytest.mark.slow
STEPS = 400


def test_one_process_saves_stops_and_resumes_bit_for_bit(
  dataset_root, workdir, runs, tmp_path
):
  config = running.small_config(dataset_root, STEPS)
  whole = running.start(config, tmp_path / "whole")
  runs.append(whole)
  assert whole.wait() == 0, whole.text
  run = running.start(config, workdir)
  runs.append(run)
  running.wait_for_step(3, workdir, run)
  run.process.send_signal(signal.SIGTERM)
  stopped_at = running.assert_stopped(run, 143, "SIGTERM")
  assert 3 <= stopped_at < STEPS
  assert running.checkpoints(workdir) == [stopped_at]
  last = running.start(config, workdir)
  runs.append(last)
  assert last.wait() == 0, last.text
  assert f"Resumed at step {stopped_at} of {STEPS}." in last.text
  expected = trained_arrays(tmp_path / "whole", STEPS)
  resumed = trained_arrays(workdir, STEPS)
  assert resumed.keys() == expected.keys()
  for key, value in expected.items():
    np.testing.assert_array_equal(resumed[key], value, err_msg=key)


def test_a_signal_to_one_of_two_processes_stops_both_at_one_step(
  dataset_root, workdir, runs
):
  config = running.small_config(dataset_root, 4000)
  stopped_at = 0
  for index, number, code in (
    (1, signal.SIGTERM, 143),
    (0, signal.SIGINT, 130),
  ):
    pair = running.start_pair(config, workdir)
    runs.extend(pair)
    running.wait_for_step(stopped_at + 3, workdir, *pair)
    pair[index].process.send_signal(number)
    steps = {running.assert_stopped(pair[0], code, number.name)}
    assert pair[1].wait() == code, pair[1].text
    assert "Traceback" not in pair[1].text
    if index == 1:
      steps.add(running.assert_stopped(pair[1], code, number.name))
    if stopped_at:
      assert f"Resumed at step {stopped_at} of 4000." in pair[0].text
    (stopped_at,) = steps
    assert running.checkpoints(workdir)[-1] == stopped_at


@pytest.mark.long
def test_an_evaluation_that_a_stop_prevented_is_made_up_by_both_processes(
  dataset_root, workdir, runs
):
  config = running.small_config(dataset_root, 6)
  config.evaluation.every_steps = 1  # so that every stop prevents one
  pair = running.start_pair(config, workdir)
  runs.extend(pair)
  running.wait_for_step(2, workdir, *pair)
  pair[0].process.send_signal(signal.SIGTERM)
  stopped_at = running.assert_stopped(pair[0], 143, "SIGTERM")
  assert pair[1].wait() == 143, pair[1].text
  assert evaluated_steps(workdir) == list(range(1, stopped_at))
  pair = running.start_pair(config, workdir)
  runs.extend(pair)
  for run in pair:
    assert run.wait() == 0, run.text
  assert f"Evaluating step {stopped_at}, which was not" in pair[0].text
  assert evaluated_steps(workdir) == list(range(1, 6))


def evaluated_steps(workdir) -> list[int]:
  """Steps of the evaluations in the log, which are not those of the losses."""
  lines = map(json.loads, (workdir / "log.jsonl").read_text().splitlines())
  return [line["step"] for line in lines if "loss" not in line]
