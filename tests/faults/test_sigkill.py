"""SIGKILL at any moment, then the same run again.

The processes are forked from one that has imported everything and has not yet
touched a device, so that a start takes a second or two and not ten.
"""

import contextlib
import json
import multiprocessing
import os
import random
import signal
import time

import numpy as np
import pytest

from tests.conftest import tiny_config
from tests.test_train import trained_arrays

pytestmark = [pytest.mark.slow, pytest.mark.long]

KILLS, STEPS = 20, 24


def train_in_process(config, workdir) -> None:
  """Trains as the main command does, with what it prints in a file."""
  output = os.open(
    workdir / "output.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC
  )
  os.dup2(output, 1)
  os.dup2(output, 2)
  from inp_former_jax import protocols

  protocols.train_and_evaluate(config, workdir)


@pytest.fixture(scope="module")
def start():
  """Function that starts a run in a process of its own."""
  context = multiprocessing.get_context("forkserver")
  context.set_forkserver_preload(["inp_former_jax.protocols", __name__])

  def start(config, workdir):
    process = context.Process(target=train_in_process, args=(config, workdir))
    process.start()
    return process

  return start


def output_of(workdir) -> str:
  return (workdir / "output.txt").read_text()


def finished(process, workdir) -> None:
  process.join(300)
  assert process.exitcode == 0, output_of(workdir)


def logged(workdir) -> list[int]:
  """Steps of the whole lines of the log."""
  steps = []
  with contextlib.suppress(FileNotFoundError):
    for line in (workdir / "log.jsonl").read_text().splitlines():
      with contextlib.suppress(ValueError):  # half a line
        steps.append(json.loads(line)["step"])
  return steps


def killed(process, workdir, moment: random.Random) -> bool:
  """Kills a run a few steps after its start; False if it was faster."""
  before, deadline = len(logged(workdir)), time.monotonic() + 120
  more = moment.randint(0, 4)  # 0: while it starts
  pause = moment.uniform(0, 2.0 if more == 0 else 0.05)
  while more and len(logged(workdir)) < before + more:
    if process.exitcode is not None:
      break
    # The log of a resumed run may become shorter before it grows.
    before = min(before, len(logged(workdir)))
    assert time.monotonic() < deadline, output_of(workdir)
    time.sleep(0.002)
  time.sleep(pause)
  process.kill()
  process.join()
  assert process.exitcode in (0, -signal.SIGKILL), output_of(workdir)
  return process.exitcode != 0


def config_of(root):
  config = tiny_config(root)
  config.data.resize, config.data.crop = 64, 56
  config.steps = STEPS
  config.checkpoint.every_steps = 2
  return config


def require_same(workdir, expected) -> None:
  """Compares the end of a run, bit for bit, and that nothing is left over."""
  found = trained_arrays(workdir, STEPS)
  assert found.keys() == expected.keys() and len(found) > 300
  for key, value in expected.items():
    np.testing.assert_array_equal(found[key], value, err_msg=key)
  folders = {path.name for path in (workdir / "checkpoints").iterdir()}
  assert folders == {str(STEPS - 2), str(STEPS)}
  assert not (workdir / "damaged_checkpoints").exists()
  assert logged(workdir) == list(range(1, STEPS + 1))


def test_run_killed_at_20_moments_ends_with_the_same_bits(
  dataset_root, tmp_path, start
):
  config = config_of(dataset_root)
  whole = tmp_path / "whole"
  whole.mkdir()
  finished(start(config, whole), whole)
  expected = trained_arrays(whole, STEPS)

  moment, kills, runs = random.Random(14), 0, []
  while kills < KILLS:
    if not runs or runs[-1][1] == "finished":
      workdir = tmp_path / f"run{len(runs)}"
      workdir.mkdir()
      runs.append([workdir, ""])
    workdir = runs[-1][0]
    if killed(start(config, workdir), workdir, moment):
      kills += 1
    else:
      runs[-1][1] = "finished"
    output = output_of(workdir)
    assert "Warning" not in output and "WARNING" not in output, output
  for workdir, _ in runs:
    finished(start(config, workdir), workdir)
    require_same(workdir, expected)
