"""The benchmark times what it says, and its command reports bad names."""

import subprocess
import sys

import numpy as np
import pytest

from inp_former_jax import train
from inp_former_jax.benchmarks import memory, models, pictures, speed
from inp_former_jax.configs import demo
from tests.conftest import tiny_config

_FEMTO = "dinov2_vit_femto_14"


@pytest.fixture
def config():
  config = demo.get_config()
  config.batch_size = 2
  config.data.resize = config.data.crop = 56
  return config


@pytest.mark.slow
def test_each_encoder_is_timed_at_both_kinds_of_work(config):
  with_registers = "dinov2reg_vit_femto_14"
  speeds = speed.measure(
    config,
    models.load(config, [_FEMTO, with_registers]),
    rounds=2,
    seconds=0.01,
  )
  assert [(found.encoder, found.work) for found in speeds] == [
    (_FEMTO, speed.PREDICT),
    (_FEMTO, speed.TRAIN),
    (with_registers, speed.PREDICT),
    (with_registers, speed.TRAIN),
  ]
  for found in speeds:
    assert len(found.images_per_second) == 2
    # the first call compiles, which takes longer than any later one
    assert min(found.images_per_second) > 2 / found.compile_seconds


def test_models_score_at_the_evaluation_size_of_the_config(config):
  config.evaluation.size = 48
  (model,) = models.load(config, [_FEMTO])
  images = np.zeros((1, 56, 56, 3), np.uint8)
  assert model.predict(images).anomaly_map.shape == (1, 48, 48)


def test_images_per_second_count_calls(monkeypatch):
  clock = iter([0.0, 0.0, 0.4, 0.8, 1.2])
  monkeypatch.setattr(speed.time, "perf_counter", lambda: next(clock))
  calls = []
  rate = speed._calls_per_second(lambda: calls.append(0), seconds=1.0)
  assert len(calls) == 3
  assert rate == pytest.approx(3 / 1.2)


def test_table_gives_the_median_and_the_spread():
  found = speed.Speed(_FEMTO, speed.TRAIN, (1.0, 4.0, 2.0), 7.25)
  line = speed.format_table([found]).splitlines()[-1]
  assert line.split() == [
    _FEMTO,
    "train",
    "2.00",
    "1.00",
    "-",
    "4.00",
    "7.2",
    "s",
  ]


def test_unknown_encoder_is_named_in_one_line():
  run = subprocess.run(
    [
      sys.executable,
      "-m",
      "inp_former_jax.benchmark",
      "--config=configs/demo.py",
      "--encoders=resnet50",
    ],
    capture_output=True,
    text=True,
  )
  assert run.returncode == 1
  assert "Unknown encoder 'resnet50'" in run.stderr
  assert "Traceback" not in run.stderr


@pytest.mark.slow
def test_the_model_of_a_run_is_timed_at_its_own_size(tmp_path, dataset_root):
  run = tiny_config(dataset_root)
  run.steps = 1
  train.train_and_evaluate(run, tmp_path)
  config = demo.get_config()  # at 224 pixels; the run had 70
  loaded = models.load(config, [], str(tmp_path))
  speeds = speed.measure(config, loaded, rounds=1, seconds=0.01)
  assert [found.work for found in speeds] == [
    speed.PREDICT,
    speed.TRAIN,
  ]
  assert speeds[0].encoder == run.model.encoder


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
