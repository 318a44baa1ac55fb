import json

import numpy as np
import pytest

from inp_former_jax.evaluation.results import Evaluation
from inp_former_jax.training.progress import TrainingLog
from tests.evaluation.simulated_processes import simulate


def metrics(loss: float) -> dict[str, np.ndarray]:
  return {
    "loss": np.float32(loss),
    "soft_mining_loss": np.float32(loss / 2),
    "coherence_loss": np.float32(loss),
  }


def open_log(
  workdir,
  schedule=lambda t: 0.0,
  *,
  start: int = 0,
  every_steps: int = 1,
  tensorboard: bool = False,
) -> TrainingLog:
  return TrainingLog(
    workdir,
    schedule,
    start=start,
    total=5,
    batch_size=4,
    every_steps=every_steps,
    tensorboard=tensorboard,
  )


def lines(workdir):
  text = (workdir / "log.jsonl").read_text()
  return [json.loads(line) for line in text.splitlines()]


def test_lines_hold_means_over_an_interval(tmp_path, capsys):
  with open_log(tmp_path, lambda t: 0.1 * t, every_steps=2) as log:
    for step in range(1, 6):
      log.step(step, metrics(float(step)))
  assert [line["step"] for line in lines(tmp_path)] == [2, 4, 5]
  assert [line["loss"] for line in lines(tmp_path)] == [1.5, 3.5, 5.0]
  assert lines(tmp_path)[0]["learning_rate"] == pytest.approx(0.1)
  output = capsys.readouterr().out
  assert "step 4/5" in output and "coherence 3.5" in output
  assert "img/s" in output and "left" in output


def test_resuming_cuts_later_lines_and_half_lines(tmp_path):
  with open_log(tmp_path) as log:
    for step in range(1, 5):
      log.step(step, metrics(1.0))
  with open(tmp_path / "log.jsonl", "a") as file:
    file.write('{"step": 5, "lo')
  with open_log(tmp_path, start=2) as log:
    log.step(3, metrics(9.0))
  assert [line["step"] for line in lines(tmp_path)] == [1, 2, 3]
  assert lines(tmp_path)[-1]["loss"] == 9.0


def test_loss_that_is_not_finite_is_an_error(tmp_path):
  message = "steps up to 1.*`peak_learning_rate`.*`dtype`=float32"
  with open_log(tmp_path) as log:
    with pytest.raises(FloatingPointError, match=message):
      log.step(1, metrics(float("nan")))
  assert not (tmp_path / "log.jsonl").exists()


def test_tensorboard_events_are_written(tmp_path):
  with open_log(tmp_path, tensorboard=True) as log:
    log.step(1, metrics(1.0))
  events = list((tmp_path / "tensorboard").glob("events.*"))
  assert events and events[0].stat().st_size > 100


@pytest.mark.parametrize("value", [0.5, float("nan")])  # nan: not in the line
def test_a_resumed_run_knows_what_was_evaluated(tmp_path, value):
  with open_log(tmp_path) as log:
    log.step(1, metrics(1.0))
    assert not log.was_evaluated(1)
    log.evaluation(1, Evaluation(1, {}, {"image_auroc": value}))
    log.step(2, metrics(1.0))
    log.evaluation(2, Evaluation(2, {}, {"image_auroc": value}))
  with open_log(tmp_path, start=1) as log:
    assert log.was_evaluated(1)
    assert not log.was_evaluated(2)  # it is taken again


def test_an_evaluation_whose_line_was_cut_short_counts_as_none(tmp_path):
  with open_log(tmp_path) as log:
    log.step(1, metrics(1.0))
    with open(log.path, "a") as file:
      file.write('{"step": 1, "test/image_au')
  with open_log(tmp_path, start=1) as log:
    assert not log.was_evaluated(1)


def test_the_first_process_tells_the_others_what_was_evaluated(
  tmp_path, monkeypatch
):
  def work(index: int) -> tuple[bool, bool]:
    # The others may see another folder, or an older state of this one.
    workdir = tmp_path / str(index)
    workdir.mkdir()
    with open_log(workdir) as log:
      log.evaluation(3, Evaluation(3, {}, {"image_auroc": 0.5}))
      return log.was_evaluated(3), log.was_evaluated(4)

  found = simulate(monkeypatch, 3, work)
  assert found == [(True, False)] * 3
  assert not (tmp_path / "1" / "log.jsonl").exists()
