"""The distillation from end to end, on tiny encoders."""

import json
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest
from flax import nnx
from PIL import Image

from inp_former_jax import config_files
from inp_former_jax import distill as distill_job
from inp_former_jax.configs import common
from inp_former_jax.configs import distill as distill_config
from inp_former_jax.distill import distill
from inp_former_jax.models import vit
from inp_former_jax.training.checkpoints.checkpoint import CheckpointError
from inp_former_jax.training.progress import TrainingLog
from inp_former_jax.weights import dinov2_rules, files, pretrained
from inp_former_jax.weights.encoders import ENCODERS, EncoderSpec

PICO = EncoderSpec(
  "dinov2_vit_pico_14",
  vit.Variant(width=12, depth=4, num_heads=3, target_blocks=(0, 1, 2, 3)),
)


@pytest.fixture(autouse=True)
def pico(monkeypatch):
  """A student still smaller than the smallest encoder."""
  monkeypatch.setitem(ENCODERS, PICO.name, PICO)


def write_teacher(path: pathlib.Path) -> np.random.Generator:
  """Writes a teacher; returns what drew its noise, for the images."""
  teacher = vit.VisionTransformer(vit.VARIANTS["femto"], rngs=nnx.Rngs(3))
  arrays = dinov2_rules.named_arrays(nnx.state(teacher))
  rng = np.random.default_rng(0)
  arrays = {
    name: value + rng.normal(0, 0.1, value.shape).astype(np.float32)
    for name, value in arrays.items()
  }
  files.write_arrays(path, arrays)
  return rng


@pytest.fixture
def config(tmp_path):
  """A run of some seconds: femto teaches pico."""
  rng = write_teacher(tmp_path / "teacher.npz")
  for i in range(4):
    path = tmp_path / "images" / f"{i}.png"
    path.parent.mkdir(exist_ok=True)
    pixels = rng.integers(0, 256, (40, 40, 3), np.uint8)
    Image.fromarray(pixels).save(path)
  config = distill_config.get_config()
  config.batch_size = 8
  config.steps = 6
  config.teacher.encoder = "dinov2_vit_femto_14"
  config.teacher.weights = str(tmp_path / "teacher.npz")
  config.student.encoder = "dinov2_vit_pico_14"
  config.views.folders = (str(tmp_path / "images"),)
  config.views.size = 56
  config.views.train = 24
  config.views.held_out = 12
  config.views.calibration = 16
  config.data.num_threads = 2
  config.checkpoint.every_steps = 3
  config.evaluation.every_steps = 4
  config.log.tensorboard = False
  return config


def student(workdir, name="student.safetensors"):
  return files.read_arrays(workdir / name)


def test_distils_writes_the_student_and_says_how_good_it_is(
  config, tmp_path, capsys
):
  workdir = tmp_path / "run"
  r2 = distill(config, workdir)
  assert r2["all"]["group0"] > 0.1  # the mean alone has 0
  printed = capsys.readouterr().out
  assert "Held-out R2 at first" in printed and "at step 4" in printed
  report = json.loads((workdir / "report.json").read_text())
  assert report["held_out_r2"] == r2
  assert report["teacher_sha256"] == files.file_sha256(tmp_path / "teacher.npz")
  # The student is an encoder like any other, in both files.
  abstract = nnx.eval_shape(
    lambda: vit.VisionTransformer(PICO.variant, rngs=nnx.Rngs(0))
  )
  states = [
    pretrained.load_weights(
      "dinov2_vit_pico_14", str(workdir / name), nnx.state(abstract)
    ).state
    for name in ("student.safetensors", "student_int8.npz")
  ]
  whole, rounded = map(jax.tree.leaves, states)
  assert len(whole) == len(rounded)
  for a, b in zip(whole, rounded, strict=True):
    assert np.abs(a - b).max() <= np.abs(a).max() / 127
  lines = (workdir / "log.jsonl").read_text().splitlines()
  assert json.loads(lines[-1])["step"] == 6


@pytest.mark.slow
def test_a_stopped_run_ends_with_the_same_student(
  config, tmp_path, monkeypatch
):
  distill(config, tmp_path / "whole")
  step = TrainingLog.step

  def stop(self, number, metrics):
    step(self, number, metrics)
    if number == 5:
      raise KeyboardInterrupt

  monkeypatch.setattr(TrainingLog, "step", stop)
  with pytest.raises(KeyboardInterrupt):
    distill(config, tmp_path / "stopped")
  monkeypatch.undo()
  monkeypatch.setitem(ENCODERS, PICO.name, PICO)
  distill(config, tmp_path / "stopped")
  whole, stopped = student(tmp_path / "whole"), student(tmp_path / "stopped")
  for name, value in whole.items():
    np.testing.assert_array_equal(value, stopped[name], err_msg=name)


@pytest.mark.slow
def test_a_student_that_a_kill_kept_from_being_written_is_made_up_once(
  config, tmp_path, monkeypatch, capsys
):
  config.checkpoint.every_steps = config.evaluation.every_steps

  def kill(*args):
    raise KeyboardInterrupt

  with monkeypatch.context() as patch:
    patch.setattr("inp_former_jax.distill._write", kill)
    with pytest.raises(KeyboardInterrupt):
      distill(config, tmp_path)
  assert not (tmp_path / "report.json").exists()
  for printed in (1, 0):
    capsys.readouterr()
    with monkeypatch.context() as patch:
      patch.setattr(TrainingLog, "step", kill)
      with pytest.raises(KeyboardInterrupt):
        distill(config, tmp_path)
    assert capsys.readouterr().out.count("R2 at step 4") == printed
    assert json.loads((tmp_path / "report.json").read_text())["step"] == 4


@pytest.mark.slow
def test_training_improves_on_a_random_start(config, tmp_path):
  config.student.initial = "random"
  config.steps = 1
  config.optimizer.peak_learning_rate = 0.0
  config.optimizer.final_learning_rate = 0.0
  untrained = distill(config, tmp_path / "untrained")
  config.steps = 40
  config.optimizer.peak_learning_rate = 3e-3
  trained = distill(config, tmp_path / "trained")
  assert trained["all"]["group0"] > untrained["all"]["group0"]


@pytest.mark.slow
def test_goes_on_from_an_earlier_student(config, tmp_path, capsys):
  first = distill(config, tmp_path / "first")
  config.student.initial = str(tmp_path / "first" / "student.safetensors")
  config.steps = 1
  config.optimizer.peak_learning_rate = 0.0
  config.optimizer.final_learning_rate = 0.0
  again = distill(config, tmp_path / "again")
  # The heads are fitted anew; the encoder is the first run's.
  assert again["all"]["group0"] > 0.8 * first["all"]["group0"]
  whole, copy = student(tmp_path / "first"), student(tmp_path / "again")
  for name, value in whole.items():
    np.testing.assert_array_equal(value, copy[name], err_msg=name)


@pytest.mark.parametrize(
  "field, value, error, message",
  [
    ("student.initial", "zeros", ValueError, "teacher or random, or the file"),
    ("student.encoder", "dinov2_vit_nano_14", ValueError, "cannot be cut"),
    ("student.dtype", "half", ValueError, "config.student.dtype is .half."),
    ("teacher.weights", "random", ValueError, "nothing to learn"),
    ("teacher.weights", "nowhere.npz", FileNotFoundError, "nowhere.npz"),
    ("views.size", 57, ValueError, "multiple of the patch size 14"),
    ("views.train", 4, ValueError, "to train on"),
  ],
)
def test_bad_settings(config, tmp_path, field, value, error, message):
  config.update_from_flattened_dict({field: value})
  with pytest.raises(error, match=message):
    distill(config, tmp_path / "run")


def interrupt(*args, **kwargs):
  raise KeyboardInterrupt


def test_another_run_is_refused_before_there_is_a_checkpoint(
  config, tmp_path, monkeypatch
):
  workdir = tmp_path / "run"
  with monkeypatch.context() as patch:
    patch.setattr(distill_job.loop, "run", interrupt)
    with pytest.raises(KeyboardInterrupt):
      distill(config, workdir)
  assert not any((workdir / "checkpoints").iterdir())
  other = config.copy_and_resolve_references()
  other.optimizer.max_norm, other.seed = 0.5, 9
  other.log.every_steps = 7  # may differ
  with pytest.raises(CheckpointError) as error:
    distill(other, workdir)
  first, *fields, remedy = str(error.value).splitlines()
  assert first == f"Another run was started in {workdir}:"
  assert fields == [
    "  optimizer.max_norm: 1.0 there, 0.5 here",
    "  seed: 1 there, 9 here",
  ]
  assert remedy.startswith("It holds no checkpoint yet: delete it")
  # Neither the same run is refused, nor one whose teacher has moved.
  recorded = config_files.load_config(workdir)
  moved = tmp_path / "moved.npz"
  (tmp_path / "teacher.npz").rename(moved)
  recorded.teacher.weights = str(moved)
  distill(recorded, workdir)
  assert student(workdir)


def test_the_workdir_of_a_training_run_is_refused(config, tmp_path):
  workdir = tmp_path / "run"
  workdir.mkdir()
  config_files.write_recorded(common.get_config(), workdir)
  with pytest.raises(CheckpointError, match="belongs to a training run; this"):
    distill(config, workdir)
  assert not (workdir / "targets").exists()


def test_the_config_of_a_training_run_is_refused(tmp_path):
  with pytest.raises(ValueError, match="training run; expected .* as distill."):
    distill(common.get_config(), tmp_path / "run")


@pytest.mark.parametrize(
  "step, message",
  [
    (2, "state after step 2 is not finite"),
    pytest.param(1, "R2 after step 1 is not", marks=pytest.mark.slow),
  ],
)
def test_a_student_that_is_not_finite_is_not_written(
  config, tmp_path, step, message
):
  workdir = tmp_path / "run"
  config.checkpoint.every_steps = 0
  config.evaluation.every_steps = step
  config.optimizer.warmup_steps = 0
  config.optimizer.peak_learning_rate = 1e38
  with pytest.raises(FloatingPointError, match=message) as error:
    distill(config, workdir)
  assert "config.optimizer.peak_learning_rate" in str(error.value)
  assert not list(workdir.glob("student*"))
  assert not (workdir / "report.json").exists()
  assert not any((workdir / "checkpoints").iterdir())


@pytest.mark.slow
def test_saves_by_the_clock_and_resumes_before_a_damaged_checkpoint(
  config, tmp_path, capsys
):
  workdir = tmp_path / "run"
  config.checkpoint.every_steps, config.checkpoint.every_minutes = 0, 1e-6
  config.checkpoint.keep = 10
  distill(config, workdir)
  checkpoints = workdir / "checkpoints"
  assert {int(p.name) for p in checkpoints.iterdir()} == {1, 2, 3, 4, 5, 6}
  expected = student(workdir)
  damaged = max((checkpoints / "6").rglob("*"), key=lambda p: p.stat().st_size)
  damaged.write_bytes(bytes(damaged.stat().st_size))
  distill(config, workdir)
  said = capsys.readouterr()
  assert "Resumed at step 5 of 6." in said.out
  assert damaged.name in said.out + said.err
  for name, value in student(workdir).items():
    np.testing.assert_array_equal(value, expected[name], err_msg=name)


@pytest.mark.slow
def test_other_views_in_a_used_workdir_are_refused(config, tmp_path):
  config.steps, config.student.initial = 1, "random"
  distill(config, tmp_path / "run")
  config.views.min_area = 0.5
  with pytest.raises(CheckpointError, match="min_area: 0.2 there, 0.5 here"):
    distill(config, tmp_path / "run")


@pytest.mark.slow
def test_command_says_errors_in_a_line(tmp_path):
  command = [
    sys.executable,
    "-m",
    "weights_conversion.distill",
    "--config=configs/distill.py",
    f"--workdir={tmp_path}",
    "--config.teacher.weights=nowhere.npz",
  ]
  result = subprocess.run(command, capture_output=True, text=True)
  assert result.returncode == 1
  assert result.stderr.startswith("error: ") and "nowhere.npz" in result.stderr
