"""Three processes that only exchange numbers: all but the dead one name it."""

import os
import signal
import subprocess
import sys

import pytest

from tests.conftest import ROOT
from tests.faults import running

pytestmark = pytest.mark.slow
# Joins the others, and exchanges numbers until something happens, or not.
PROGRAM = """
import sys
import numpy as np
from inp_former_jax.processes import joining
from inp_former_jax.processes.preemption import Preemption

address, index, rounds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
with Preemption() as preemption:
  joining.join(address, 3, index, versions={})
  preemption.joined()
  from jax.experimental import multihost_utils

  for number in range(rounds):
    multihost_utils.process_allgather(np.ones(3))
    if number == 3:
      print("exchanging", flush=True)
"""


@pytest.fixture
def start():
  started = []

  def start_three(rounds: int) -> list[subprocess.Popen]:
    address = f"127.0.0.1:{running.free_port()}"
    started.extend(
      subprocess.Popen(
        [sys.executable, "-c", PROGRAM, address, str(index), str(rounds)],
        cwd=ROOT,
        env=os.environ | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
      )
      for index in range(3)
    )
    return started

  yield start_three
  for process in started:
    process.kill()
    process.communicate()


@pytest.mark.parametrize("dying", [0, 2])
def test_both_others_name_the_one_that_was_killed(start, dying):
  three = start(10**9)
  for process in three:
    lines = iter(process.stdout.readline, "")
    assert "exchanging\n" in lines, process.stderr.read()
  three[dying].send_signal(signal.SIGKILL)
  for index, process in enumerate(three):
    if index != dying:
      _, error = process.communicate(timeout=60)
      assert process.returncode == 1, error
      assert f"the process {dying} gave no answer" in error
      assert "Terminating process because" not in error


@pytest.mark.parametrize("rounds", [0, 5])
def test_all_end_without_an_error(start, rounds):
  for process in start(rounds):
    _, error = process.communicate(timeout=120)
    assert process.returncode == 0, error
