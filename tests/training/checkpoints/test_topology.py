"""A checkpoint of one topology restores on another, bit for bit."""

import json
import os
import socket
import subprocess
import sys

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.slow


def started(folder, data, fsdp, step, devices, *peers):
  arguments = [str(item) for item in (folder, data, fsdp, step, *peers)]
  return subprocess.Popen(
    [
      sys.executable,
      "-m",
      "tests.training.checkpoints.topology_process",
      *arguments,
    ],
    cwd=ROOT,
    env=os.environ | {"JAX_NUM_CPU_DEVICES": str(devices)},
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


def ended(*processes):
  """Returns what the processes report."""
  outputs = [process.communicate(timeout=300) for process in processes]
  for process, (_, error) in zip(processes, outputs, strict=True):
    assert process.returncode == 0, error
    assert "Warning" not in error
  return [json.loads(output.splitlines()[-1]) for output, _ in outputs]


def test_from_8_devices_to_1_to_2_processes_and_back(tmp_path):
  folder = tmp_path / "checkpoints"
  ended(started(folder, 4, 2, 1, 8))
  (one,) = ended(started(folder, 1, 1, 2, 1))
  assert one == {"devices": 1, "processes": 1, "split": 0}
  with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    address = f"127.0.0.1:{free.getsockname()[1]}"
  two = ended(*(started(folder, 4, 2, 3, 4, address, i) for i in range(2)))
  assert all(r["processes"] == 2 and r["devices"] == 8 for r in two)
  assert all(r["split"] > 10 for r in two)  # fsdp cuts the large ones
  (back,) = ended(started(folder, 2, 4, 4, 8))
  assert back["split"] > 10
  assert sorted(p.name for p in folder.iterdir()) == ["3", "4"]
