"""Runs of which only the checkpoints are in a bucket, served on loopback."""

import json
import shutil
import signal
import subprocess
import sys

import pytest
from etils import epath

from tests.conftest import ROOT, run_main
from tests.faults import running

pytestmark = pytest.mark.slow


def config_of(dataset_root, folder, steps=40):
  config = running.small_config(dataset_root, steps)
  config.checkpoint.every_steps = 10
  config.checkpoint.folder = folder
  return config


def logged_steps(workdir):
  lines = (workdir / "log.jsonl").read_text().splitlines()
  found = [json.loads(line) for line in lines]
  return [line["step"] for line in found if "loss" in line]


def test_a_lost_workdir_is_no_lost_run(bucket, dataset_root, tmp_path, runs):
  config = config_of(dataset_root, f"{bucket}/lost", 4000)
  runs.append(running.start(config, tmp_path / "first"))
  running.wait_for_step(25, tmp_path / "first", *runs)
  runs[0].process.send_signal(signal.SIGTERM)
  stopped = running.assert_stopped(runs[0], 143, "SIGTERM")
  assert not (tmp_path / "first" / "checkpoints").exists()
  shutil.rmtree(tmp_path / "first")

  config.steps = 4000
  runs.append(running.start(config, tmp_path / "second"))
  resumed = f"Resumed at step {stopped} of 4000."
  running.wait_until(lambda: resumed in runs[1].text, runs[1])


def test_two_processes_and_all_commands(bucket, dataset_root, tmp_path, runs):
  folder = f"{bucket}/pair"
  config, workdir = config_of(dataset_root, folder), tmp_path / "pair"
  config.checkpoint.best = "image_auroc"
  config.evaluation.every_steps = 20
  runs.extend(running.start_pair(config, workdir))
  saved = epath.Path(folder) / "10" / "commit_success.txt"
  running.wait_until(saved.exists, *runs)
  running.stop(*runs)
  again = running.start_pair(config, workdir)
  runs.extend(again)
  for run in again:
    assert run.wait() == 0, run.text
  assert "Resumed at step" in again[0].text
  steps = {p.name for p in epath.Path(folder).iterdir() if p.name.isdecimal()}
  assert "40" in steps and not (workdir / "checkpoints").exists()
  assert logged_steps(workdir) == list(range(1, 41))  # each once

  evaluated = run_main(config, workdir, "--mode=eval")
  assert evaluated.returncode == 0, evaluated.stderr
  image = next(dataset_root.rglob("test/*/*.png"))
  predicted = subprocess.run(
    [
      *(sys.executable, "-m", "inp_former_jax.predict"),
      *(workdir, image, f"--out={tmp_path / 'answers'}"),
    ],
    cwd=ROOT,
    capture_output=True,
    text=True,
    timeout=300,
  )
  assert predicted.returncode == 0, predicted.stderr

  config.checkpoint.folder = f"{bucket}/elsewhere"
  refused = run_main(config, workdir)
  assert refused.returncode == 1 and "Traceback" not in refused.stderr
  assert f"are in {folder}; this run would write" in refused.stderr


def test_each_category_has_a_folder(bucket, dataset_root, tmp_path):
  config = config_of(dataset_root, f"{bucket}/single", 2)
  config.protocol = "single_class"
  run = run_main(config, tmp_path / "w")
  assert run.returncode == 0, run.stderr
  found = {path.name for path in epath.Path(f"{bucket}/single").iterdir()}
  assert found == {
    path.name for path in dataset_root.iterdir() if path.is_dir()
  }


def test_a_bucket_that_does_not_exist(bucket, dataset_root, tmp_path):
  config = config_of(dataset_root, "gs://another/run")
  run = run_main(config, tmp_path / "w")
  assert run.returncode == 1 and "Traceback" not in run.stderr
  assert "gs://another/run cannot be used" in run.stderr
