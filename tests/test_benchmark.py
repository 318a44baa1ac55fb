"""The benchmark times what it says, and its command reports bad names."""

import subprocess
import sys

import numpy as np
import pytest

from inp_former_jax import benchmark, sharding, train
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
  speeds = benchmark.measure(
    config, [_FEMTO, with_registers], rounds=2, seconds=0.01
  )
  assert [(speed.encoder, speed.work) for speed in speeds] == [
    (_FEMTO, benchmark.PREDICT),
    (_FEMTO, benchmark.TRAIN),
    (with_registers, benchmark.PREDICT),
    (with_registers, benchmark.TRAIN),
  ]
  for speed in speeds:
    assert len(speed.images_per_second) == 2
    # the first call compiles, which takes longer than any later one
    assert min(speed.images_per_second) > 2 / speed.compile_seconds


def test_models_score_at_the_evaluation_size_of_the_config(config):
  config.evaluation.size = 48
  model = benchmark._initialise(config, _FEMTO, sharding.make_mesh())
  images = np.zeros((1, 56, 56, 3), np.uint8)
  assert model.predict(images).anomaly_map.shape == (1, 48, 48)


def test_images_per_second_count_calls(monkeypatch):
  clock = iter([0.0, 0.0, 0.4, 0.8, 1.2])
  monkeypatch.setattr(benchmark.time, "perf_counter", lambda: next(clock))
  calls = []
  rate = benchmark._calls_per_second(lambda: calls.append(0), seconds=1.0)
  assert len(calls) == 3
  assert rate == pytest.approx(3 / 1.2)


def test_table_gives_the_median_and_the_spread():
  speed = benchmark.Speed(_FEMTO, benchmark.TRAIN, (1.0, 4.0, 2.0), 7.25)
  line = benchmark.format_table([speed], batch_size=8).splitlines()[-1]
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
  speeds = benchmark.measure(
    config, [], rounds=1, seconds=0.01, workdir=str(tmp_path)
  )
  assert [speed.work for speed in speeds] == [
    benchmark.PREDICT,
    benchmark.TRAIN,
  ]
  assert speeds[0].encoder == run.model.encoder
