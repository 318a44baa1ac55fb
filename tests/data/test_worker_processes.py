"""How many processes decode, and what happens if one of them is killed."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest
from PIL import Image

from inp_former_jax.configs import common
from inp_former_jax.data import loader, worker_processes
from inp_former_jax.data.records import Record
from inp_former_jax.data.transforms import Preprocessing
from inp_former_jax.data.worker_processes import AUTOMATIC, number_of_processes
from tests.conftest import ROOT


@pytest.mark.parametrize(
  ("cores", "images", "expected"),
  [
    *((1, 10_000, 0), (2, 10_000, 0), (4, 10_000, 0)),
    *((5, 10_000, 4), (16, 10_000, 15), (96, 100_000, 16)),
    *((16, 96, 0), (16, 255, 0), (16, 256, 2), (16, 1_000, 7)),
  ],
)
def test_as_many_as_suit_cores_and_images(monkeypatch, cores, images, expected):
  monkeypatch.setattr(worker_processes, "usable_cores", lambda: cores)
  assert number_of_processes(AUTOMATIC, images) == expected


def test_the_user_s_number_counts(monkeypatch):
  monkeypatch.setattr(worker_processes, "usable_cores", lambda: 64)
  assert [number_of_processes(n, 10**6) for n in (0, 1, 3)] == [0, 1, 3]
  with pytest.raises(ValueError, match="`num_workers` is -2; expected"):
    number_of_processes(-2, 10)


@pytest.mark.parametrize(("cores", "most"), [(2, 16), (64, 256)])
def test_too_many_processes_are_refused(monkeypatch, cores, most):
  monkeypatch.setattr(worker_processes, "usable_cores", lambda: cores)
  assert number_of_processes(most, 10) == most
  with pytest.raises(ValueError, match=f"`num_workers` is .*at most {most} "):
    number_of_processes(most + 1, 10)


_PARENT = """
import pathlib, sys
from inp_former_jax.data import loader
from inp_former_jax.data.records import Record
from inp_former_jax.data.transforms import Preprocessing

if __name__ == "__main__":
  files = sorted(pathlib.Path(sys.argv[1]).glob("*.png"))
  batches = loader.training_batches(
    [Record(file, "a", 0, "good") for file in files],
    Preprocessing((32, 32), (28, 28)),
    batch_size=4,
    seed=3,
    num_workers=2,
  )
  next(batches)
  print("ready", flush=True)
  sys.stdin.read()
"""


def test_workers_end_with_a_killed_parent(records, tmp_path):
  script = tmp_path / "parent.py"
  script.write_text(_PARENT)
  parent = subprocess.Popen(
    [sys.executable, str(script), str(tmp_path)],
    env=os.environ | {"PYTHONPATH": str(ROOT)},
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
  )
  try:
    assert parent.stdout.readline() == b"ready\n"
    children = psutil.Process(parent.pid).children(recursive=True)
    workers = [c for c in children if "spawn_main" in " ".join(c.cmdline())]
    assert len(workers) == 2
  finally:
    parent.kill()
    parent.communicate()
  _, alive = psutil.wait_procs(workers, timeout=20)
  assert not alive


def test_only_a_death_is_described():
  described = worker_processes.describe_death
  assert described(RuntimeError("Out of luck.")) == ""
  text = "Worker process was terminated unexpectedly with exit code 3. Search"
  assert "exit code 3 (what it printed is above)" in described(
    RuntimeError(text)
  )


def test_the_config_leaves_the_choice_to_the_machine():
  assert common.get_config().data.num_workers == AUTOMATIC


def test_cores_are_those_of_this_process():
  assert 1 <= worker_processes.usable_cores() <= (os.cpu_count() or 1)


@pytest.fixture
def records(tmp_path) -> list[Record]:
  found = []
  for number in range(8):
    path = tmp_path / f"{number}.png"
    Image.fromarray(np.full((40, 40, 3), number, np.uint8)).save(path)
    found.append(Record(path, "a", 0, "good"))
  return found


@pytest.mark.parametrize("cores", [2, 8])
def test_automatic_workers_give_the_same_batches(monkeypatch, records, cores):
  monkeypatch.setattr(worker_processes, "usable_cores", lambda: cores)
  monkeypatch.setattr(worker_processes, "_LEAST_IMAGES", 4)

  def take(num_workers: int) -> list[np.ndarray]:
    batches = loader.training_batches(
      records,
      Preprocessing((32, 32), (28, 28)),
      batch_size=4,
      seed=3,
      num_workers=num_workers,
    )
    found = [next(batches)["image"] for _ in range(3)]
    children = psutil.Process().children(recursive=True)
    workers = [c for c in children if "spawn_main" in " ".join(c.cmdline())]
    assert len(workers) == (2 if cores > 4 and num_workers else 0)
    batches.close()
    return found

  for one, other in zip(take(0), take(AUTOMATIC), strict=True):
    np.testing.assert_array_equal(one, other)


def test_a_killed_worker_is_an_error_and_no_endless_wait(records):
  batches = loader.training_batches(
    records,
    Preprocessing((32, 32), (28, 28)),
    batch_size=4,
    seed=3,
    num_workers=1,
  )
  next(batches)
  for child in psutil.Process().children(recursive=True):
    if "spawn_main" in " ".join(child.cmdline()):
      child.send_signal(signal.SIGKILL)
  began = time.monotonic()
  with pytest.raises(
    RuntimeError, match="exit code -9 .*memory.*`num_workers`"
  ):
    for _ in range(50):  # what the process had made before is still there
      next(batches)
  batches.close()
  assert time.monotonic() - began < 60
