"""Signals, in small real processes; what a run asks, without any."""

import signal
import subprocess
import sys
import time

import pytest

from inp_former_jax.processes.preemption import Interrupted, Preemption
from tests.conftest import ROOT

PROGRAM = """
import sys, time
from inp_former_jax.processes.preemption import Interrupted, Preemption
def wait():
  print("ready", flush=True)
  for _ in range(600):
    time.sleep(0.05)
with Preemption() as preemption:
  {body}
"""
BEFORE_STEPS = "wait()"
IN_A_STEP = "preemption.reached(1); wait()"
STEPS = """
  print("ready", flush=True)
  while not preemption.reached(1):
    time.sleep(0.01)
  raise preemption.stopped(7, 9)
"""
LAST_STEP = """
  preemption.reached(1)
  try:
    with preemption.interrupting():
      wait()
  except Interrupted:
    preemption.finish()
"""


def signalled(body: str, *numbers: int) -> tuple[int, str]:
  """Sends signals, 1.5 s apart; returns the exit code and the last output."""
  process = subprocess.Popen(
    [sys.executable, "-c", PROGRAM.format(body=body)],
    cwd=ROOT,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )
  try:
    assert process.stdout and process.stdout.readline() == "ready\n"
    for position, number in enumerate(numbers):
      time.sleep(1.5 * (position > 0))
      process.send_signal(number)
    _, error = process.communicate(timeout=20)
  finally:
    process.kill()
  return process.returncode, error


@pytest.mark.parametrize(
  "number, code", [(signal.SIGTERM, 143), (signal.SIGINT, 130)]
)
def test_a_signal_is_asked_for_between_steps(number, code):
  found, error = signalled(STEPS, number)
  assert found == code
  assert error == (
    f"Stopped by {number.name} at step 7 of 9; its checkpoint is saved. The "
    "same command resumes there.\n"
  )


def test_before_the_first_step_a_signal_ends_at_once():
  code, error = signalled(BEFORE_STEPS, signal.SIGINT)
  assert code == 130
  assert error.startswith("Stopped by SIGINT; no step was under way.")
  assert error.count("\n") == 1


def test_a_second_signal_ends_at_once():
  code, error = signalled(IN_A_STEP, signal.SIGTERM, signal.SIGTERM)
  assert (code, error) == (143, "Stopped at once by a second signal.\n")


def test_an_evaluation_is_interrupted_and_the_last_step_kept():
  code, error = signalled(LAST_STEP, signal.SIGTERM)
  assert code == 143
  assert error.startswith("Stopped by SIGTERM after the last step")


def test_without_entering_it_no_signal_is_touched():
  before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
  preemption = Preemption()
  assert not preemption.reached(1) and not preemption.stopping
  with preemption.interrupting():
    pass
  preemption.finish()
  assert [
    signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)
  ] == before


def test_on_exit_it_gives_the_signals_back():
  before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
  with Preemption():
    assert signal.getsignal(signal.SIGINT) is not before[0]
  assert [
    signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)
  ] == before


def test_a_signal_between_step_and_evaluation_is_not_lost():
  preemption = Preemption()
  with preemption:
    preemption.reached(1)
    signal.raise_signal(signal.SIGTERM)
    with pytest.raises(Interrupted), preemption.interrupting():
      pytest.fail("evaluated")
    assert preemption.stopping
    assert "at step 1 of 2" in preemption.stopped(1, 2).line
