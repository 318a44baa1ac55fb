"""Any number of devices and processes gives the same numbers."""

import json
import os
import shutil
import socket
import subprocess

import numpy as np
import pytest

from tests.conftest import ROOT, main_command, run_main

pytestmark = pytest.mark.slow


@pytest.fixture
def config(config):
  return twenty_steps(config)


def twenty_steps(settings):
  """At a rate that does not amplify rounding a hundredfold within the run.

  At the full rate it may: where two INPs are equally near to a patch, the last
  bit decides which of them learns.
  """
  settings.batch_size, settings.steps = 8, 20
  settings.optimizer.peak_learning_rate = 2e-4
  settings.checkpoint.every_steps = 0
  return settings


@pytest.fixture(scope="module")
def one_device(dataset_root, tmp_path_factory):
  """The 20 steps on one device: losses, mean test metrics."""
  from tests.conftest import tiny_config

  settings = tiny_config(dataset_root)
  settings = twenty_steps(settings)
  workdir = tmp_path_factory.mktemp("one")
  run = run_main(settings, workdir)
  assert run.returncode == 0, run.stderr
  return read_losses(workdir), read_metrics(workdir)


def read_losses(workdir) -> np.ndarray:
  lines = (workdir / "log.jsonl").read_text().splitlines()
  return np.array([json.loads(line)["loss"] for line in lines])


def read_metrics(workdir) -> dict[str, float]:
  return json.loads((workdir / "metrics.json").read_text())["mean"]


def assert_same(workdir, one_device) -> None:
  losses, metrics = one_device
  assert len(losses) == 20 and losses[-1] < losses[0]
  np.testing.assert_allclose(read_losses(workdir), losses, rtol=1e-5)
  # Ranks of near ties may change places: areas hardly move.
  for name in ("image_auroc", "pixel_auroc", "pixel_aupro"):
    assert read_metrics(workdir)[name] == pytest.approx(metrics[name], abs=1e-3)


@pytest.mark.parametrize("data, fsdp", [(8, 1), (2, 4)])
def test_eight_devices_give_the_losses_of_one(
  config, tmp_path, one_device, data, fsdp
):
  config.mesh.data, config.mesh.fsdp = data, fsdp
  run = run_main(config, tmp_path, devices=8)
  assert run.returncode == 0, run.stderr
  assert_same(tmp_path, one_device)


def test_two_processes_give_the_losses_of_one(config, tmp_path, one_device):
  with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
  processes = [
    subprocess.Popen(
      main_command(
        config,
        tmp_path,
        "--distributed",
        f"--coordinator=127.0.0.1:{port}",
        "--num_processes=2",
        f"--process_id={index}",
      ),
      cwd=ROOT,
      env=os.environ | {"JAX_NUM_CPU_DEVICES": "2"},
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    )
    for index in range(2)
  ]
  for process in processes:
    _, error = process.communicate(timeout=600)
    assert process.returncode == 0, error
  assert_same(tmp_path, one_device)


def test_run_of_eight_devices_resumes_on_one(config, tmp_path):
  config.checkpoint.every_steps = 2
  config.steps = 4
  # Four steps have no warm-up: at the full rate they amplify rounding.
  config.optimizer.peak_learning_rate = 1e-4
  assert run_main(config, tmp_path, devices=8).returncode == 0
  whole = read_losses(tmp_path)
  # Take the end away: the newest checkpoint is then the one of step 2.
  shutil.rmtree(tmp_path / "checkpoints" / "4")
  run = run_main(config, tmp_path, devices=1)
  assert run.returncode == 0, run.stderr
  np.testing.assert_allclose(read_losses(tmp_path), whole, rtol=1e-5)
