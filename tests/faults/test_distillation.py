"""The command that distils, killed and stopped like the one that trains."""

import re
import signal
import sys

import pytest

from inp_former_jax.configs import distill as distill_config
from tests.conftest import overrides
from tests.faults import running
from tests.test_distill import write_teacher

pytestmark = pytest.mark.slow
STEPS = 4000


@pytest.fixture
def config(tmp_path):
  """Steps of some milliseconds, on generated views."""
  write_teacher(tmp_path / "teacher.npz")
  config = distill_config.get_config()
  config.batch_size, config.steps = 4, STEPS
  config.teacher.encoder = config.student.encoder = "dinov2_vit_femto_14"
  config.teacher.weights = str(tmp_path / "teacher.npz")
  config.student.initial = "random"
  config.views.shares = (0.0, 0.0, 1.0)
  config.views.size = 28
  config.views.train, config.views.held_out = 24, 8
  config.views.calibration = 16
  config.checkpoint.every_steps = config.evaluation.every_steps = 0
  config.log.every_steps, config.log.tensorboard = 1, False
  return config


def start(workdir, config=None) -> running.Run:
  flags = ["--config=distill", *overrides(config)] if config else []
  module = [sys.executable, "-m", "weights_conversion.distill"]
  return running.launch([*module, f"--workdir={workdir}", *flags], workdir)


def stopped(run, number: int) -> int:
  """Stops a run when it has taken steps; returns the step that it names."""
  running.wait_until(
    lambda: len(re.findall(r"^step \d", run.text, re.M)) > 2, run
  )
  run.process.send_signal(number)
  assert run.wait() == 128 + number, run.text
  assert "Traceback" not in run.text
  name = signal.Signals(number).name
  found = re.findall(rf"^Stopped by {name} at step (\d+) of", run.text, re.M)
  assert len(found) == 1, run.text
  return int(found[0])


@pytest.mark.long
def test_killed_before_its_first_checkpoint_it_is_still_that_run(
  config, workdir, runs
):
  first = start(workdir, config)
  runs.append(first)
  running.wait_for_step(3, workdir, first)
  first.process.send_signal(signal.SIGKILL)
  first.wait()
  assert running.checkpoints(workdir) == []

  config.optimizer.max_norm = 0.5
  other = start(workdir, config)
  runs.append(other)
  assert other.wait() == 1, other.text
  assert f"error: Another run was started in {workdir}:" in other.text
  assert "\n  optimizer.max_norm: 1.0 there, 0.5 here\n" in other.text

  # The workdir alone says which run it is.
  again = start(workdir)
  runs.append(again)
  step = stopped(again, signal.SIGTERM)
  assert f"Training for {STEPS} steps." in again.text
  assert running.checkpoints(workdir) == [step]
  last = start(workdir)
  runs.append(last)
  later = stopped(last, signal.SIGINT)
  assert f"Resumed at step {step} of {STEPS}." in last.text
  assert running.checkpoints(workdir) == [step, later]
