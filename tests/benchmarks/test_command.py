"""The benchmark's command: its words, its errors and its record."""

import json
import subprocess
import sys

import numpy as np
import pytest

from inp_former_jax import benchmark
from inp_former_jax.atomic import write_json
from inp_former_jax.benchmarks import memory, models, pictures, record, steps

_FEMTO = "dinov2_vit_femto_14"


def test_models_score_at_the_evaluation_size_of_the_config(config):
  config.evaluation.size = 48
  (model,) = models.load(config, [_FEMTO])
  images = np.zeros((1, 56, 56, 3), np.uint8)
  assert model.predict(images).anomaly_map.shape == (1, 48, 48)


def test_memory_is_that_of_this_process():
  with memory.Watch() as watch:
    held = np.ones(50_000_000, np.uint8)
    assert watch.highest_of_part() >= watch.before
  assert watch.highest - watch.before > 30_000_000
  assert memory.highest_resident() >= memory.resident() > len(held)


@pytest.mark.slow
def test_files_are_streamed_and_tiled_with_what_it_took(config):
  (model,) = models.load(config, [_FEMTO])
  runs = [
    pictures.stream(config, model, 40),
    pictures.tile(config, model, (300, 400), (128, 128, 32), rounds=1),
  ]
  assert len(runs[0].parts) == pictures.PARTS
  for run in runs:
    assert 0 < run.before <= run.highest <= run.process
    assert run.seconds > 0
  table = pictures.format_table(runs)
  assert "stream" in table and "400x300" in table
  assert "highest in each 10th:" in table


def test_impossible_pictures_are_refused(config):
  (model,) = models.load(config, [_FEMTO])
  with pytest.raises(ValueError, match="expected 10 or more"):
    pictures.stream(config, model, 3)
  with pytest.raises(ValueError, match="tile.* is 9,9,9"):
    pictures.tile(config, model, (9, 9), (9, 9, 9), rounds=1)


def run_benchmark(*arguments: str) -> subprocess.CompletedProcess:
  return subprocess.run(
    [sys.executable, "-m", "inp_former_jax.benchmark", *arguments],
    capture_output=True,
    text=True,
  )


@pytest.mark.parametrize(
  "arguments, message",
  [
    (["--encoders=resnet50"], "Unknown encoder 'resnet50'"),
    (["predict", "fly"], "There is no work 'fly'; the works are predict, step"),
    (["metrics", "--crops=224"], "--crops belongs to predict, step, cached"),
    (["metrics", "--maps=1,x"], "--maps is '1,x'; expected whole numbers"),
    (
      ["--encoders=demo_vit_tiny_14", "--workdir=w"],
      "--workdir the model of a run: give one of them",
    ),
  ],
)
def test_what_cannot_be_done_is_told_in_one_line(arguments, message):
  run = run_benchmark(*arguments, "--config=demo")
  assert run.returncode == 1
  assert message in run.stderr
  assert "Traceback" not in run.stderr


def test_works_are_predict_and_step_by_default_and_each_is_done_once():
  assert benchmark._works([]) == [steps.PREDICT, steps.STEP]
  assert benchmark._works(["metrics", "predict", "metrics"]) == [
    *("metrics", "predict")
  ]


@pytest.mark.slow
def test_the_record_holds_what_was_measured_and_on_which_machine(tmp_path):
  file = tmp_path / "record.json"
  run = run_benchmark(
    *("predict", "metrics", "--config=demo"),
    *(f"--encoders={_FEMTO}", "--config.batch_size=2", "--maps=20"),
    *("--config.data.resize=56", "--config.data.crop=56"),
    *("--rounds=2", "--seconds=0.01", f"--json={file}"),
    *("--batch_sizes=1,2,3", f"--profile={tmp_path / 'trace'}"),
  )
  assert run.returncode == 0, run.stderr
  content = json.loads(file.read_text())
  assert content["works"] == ["predict", "metrics"]
  assert content["dtype"] == "float32" and content["machine"]["date"]
  assert [one["batch_size"] for one in content["speeds"]] == [1, 2, 3]
  assert len(content["growth"]) == 1 and len(content["rates"]) == 2
  assert content["metrics"]["runs"][0]["maps"] == 20
  assert "of floor" in run.stdout and "growth" in run.stdout
  assert "over the images of a batch" in run.stdout
  assert list((tmp_path / "trace").rglob("*.xplane.pb"))


def test_the_machine_is_described_and_a_record_is_json(tmp_path):
  found = record.machine()
  assert found["cores"] >= 1 and found["jax"] and found["date"]
  file = tmp_path / "record.json"
  write_json(file, {"machine": found, "runs": [record_of_pictures()]})
  assert json.loads(file.read_text())["runs"][0]["work"] == "tile"


def record_of_pictures() -> pictures.PictureRun:
  return pictures.PictureRun("vit", "tile", 1, (2, 3), 1.0, 1, 2, 3)
