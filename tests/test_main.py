"""The command line: what a user types, and what a user gets wrong."""

import subprocess
import sys

import pytest

from tests.conftest import ROOT, run_main


def main(*flags: str) -> subprocess.CompletedProcess:
  return subprocess.run(
    [sys.executable, "-m", "inp_former_jax.main", *flags],
    cwd=ROOT,
    capture_output=True,
    text=True,
    timeout=300,
  )


@pytest.mark.parametrize(
  "flag, words",
  [
    ("--config.bach_size=4", ["bach_size", "batch_size"]),
    ("--config.model.dtpye=float32", ["dtpye", "dtype"]),
    ("--config.batch_size=four", ["config.batch_size", "four"]),
    ("--config.loss.gamma=high", ["config.loss.gamma", "high"]),
    ("--config.model.use_inps=maybe", ["config.model.use_inps", "maybe"]),
    ("--confg.batch_size=4", ["confg"]),
    ("--mode=trian", ["mode", "train"]),
  ],
)
def test_wrong_flags_are_named(tmp_path, flag, words):
  run = main("--config=configs/demo.py", f"--workdir={tmp_path}", flag)
  assert run.returncode != 0
  for word in words:
    assert word in run.stdout + run.stderr
  assert "Traceback" not in run.stderr
  assert not list(tmp_path.iterdir())


def test_errors_are_one_message_without_traceback(tmp_path):
  run = main("--config=configs/mvtec.py", f"--workdir={tmp_path}")
  assert run.returncode == 1
  assert run.stderr.startswith("error: config.data.root is empty")
  assert "Traceback" not in run.stderr


@pytest.mark.slow
def test_train_then_eval_from_the_command_line(config, tmp_path):
  config.data.num_workers = 2
  run = run_main(config, tmp_path)
  assert run.returncode == 0, run.stderr
  assert "mean" in run.stdout and "step 4/4" in run.stdout
  first = (tmp_path / "metrics.csv").read_bytes()
  (tmp_path / "metrics.csv").unlink()
  run = run_main(config, tmp_path, "--mode=eval")
  assert run.returncode == 0, run.stderr
  assert (tmp_path / "metrics.csv").read_bytes() == first
