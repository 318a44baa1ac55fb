"""SIGKILL at any moment, then the same command again."""

import json
import signal
import subprocess
import time

import numpy as np
import pytest

from tests.conftest import ROOT, main_command, run_main
from tests.test_train import trained_arrays

STEPS = 8


def killed_after(config, workdir, step: int) -> None:
  """Starts the main entry and kills it once it has logged a step."""
  log = workdir / "log.jsonl"
  with open(workdir / "output.txt", "w") as output:
    process = subprocess.Popen(
      main_command(config, workdir), cwd=ROOT, stdout=output, stderr=output
    )
    deadline = time.monotonic() + 300
    try:
      while not (log.exists() and _last_step(log) >= step):
        assert process.poll() is None, (workdir / "output.txt").read_text()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    finally:
      process.send_signal(signal.SIGKILL)
      process.wait()
  assert process.returncode == -signal.SIGKILL


def _last_step(log) -> int:
  lines = log.read_text().splitlines()
  try:
    return json.loads(lines[-1])["step"] if lines else 0
  except ValueError:  # half a line
    return 0


@pytest.fixture(scope="module")
def uninterrupted(dataset_root, tmp_path_factory):
  from tests.conftest import tiny_config

  config = tiny_config(dataset_root)
  config.steps = STEPS
  config.checkpoint.every_steps = 3
  workdir = tmp_path_factory.mktemp("uninterrupted")
  run = run_main(config, workdir)
  assert run.returncode == 0, run.stderr
  return config, trained_arrays(workdir, STEPS)


# Before the first checkpoint; while one is being saved (every 3 steps, in the
# background); between two; right before the end.
@pytest.mark.slow
@pytest.mark.parametrize("step", [1, 3, 5, 7])
def test_killed_run_ends_with_the_same_bits(uninterrupted, tmp_path, step):
  config, expected = uninterrupted
  killed_after(config, tmp_path, step)
  # Wherever it was killed, a save may have been under way.
  (tmp_path / "checkpoints" / "6.orbax-checkpoint-tmp").mkdir(exist_ok=True)
  run = run_main(config, tmp_path)
  assert run.returncode == 0, run.stderr
  # Before step 3 there is no checkpoint; after it the save may be unfinished.
  starts = [f"Resumed at step {s} of {STEPS}." for s in (3, 6)]
  starts += [f"Training for {STEPS} steps."] if step < 7 else []
  assert any(start in run.stdout for start in starts)
  assert "Removing" not in run.stderr and "WARNING" not in run.stderr
  assert not list((tmp_path / "checkpoints").glob("*tmp*"))
  resumed = trained_arrays(tmp_path, STEPS)
  assert resumed.keys() == expected.keys()
  for key, value in expected.items():
    np.testing.assert_array_equal(resumed[key], value, err_msg=key)
  steps = [
    json.loads(line)["step"]
    for line in (tmp_path / "log.jsonl").read_text().splitlines()
  ]
  assert steps == list(range(1, STEPS + 1))
