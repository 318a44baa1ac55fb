"""Processes that find each other by Slurm's variables, without Slurm."""

import contextlib
import random
import socket

import pytest

from tests.faults import running

pytestmark = pytest.mark.slow


def start_task(config, workdir, job: int, index: int, *flags: str):
  """Starts one of two tasks of a job, as srun would."""
  return running.start(
    config,
    workdir,
    "--distributed",
    *flags,
    SLURM_JOB_ID=str(job),
    SLURM_STEP_NODELIST="localhost",
    SLURM_NTASKS="2",
    SLURM_PROCID=str(index),
    SLURM_LOCALID=str(index),
  )


@pytest.fixture
def job() -> int:
  """A job whose port is free: JAX takes 61440 and the number modulo 4096."""
  for number in random.sample(range(4096), 4096):
    with contextlib.suppress(OSError), socket.socket() as free:
      free.bind(("127.0.0.1", 61440 + number))
      return number
  raise OSError("no port is free")


def test_the_tasks_of_a_job_train_together(dataset_root, workdir, runs, job):
  config = running.small_config(dataset_root, 5)
  runs.extend(start_task(config, workdir, job, index) for index in range(2))
  assert [run.wait() for run in runs] == [0, 0], [run.text for run in runs]
  assert "step 5/5" in runs[0].text and "per process" in runs[0].text


@pytest.mark.parametrize("present", [0, 1])
def test_a_task_that_does_not_come_is_named(
  dataset_root, workdir, runs, job, present
):
  config = running.small_config(dataset_root, 5)
  run = start_task(config, workdir, job, present, "--join_timeout=4")
  runs.append(run)
  assert run.wait(120) == 1, run.text
  missing = ("--process_id=1", f"process 0 at localhost:{61440 + job}")[present]
  assert missing in run.text
  assert "Traceback" not in run.text
