"""One run at a time writes to a workdir, and says which it is."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time

import jax
import numpy as np
import pytest

from inp_former_jax.processes import exchange
from inp_former_jax.training.checkpoints import workdir_lock
from inp_former_jax.training.identity import CheckpointError
from tests.conftest import ROOT

HOLD = """
import sys, time
from inp_former_jax.training.checkpoints import workdir_lock
with workdir_lock.holding(sys.argv[1]):
  print("held", flush=True)
  time.sleep(600)
"""


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
  monkeypatch.setattr(workdir_lock, "_SECONDS", 0.05)


def test_a_second_run_is_refused_in_a_line_that_names_the_first(tmp_path):
  with workdir_lock.holding(tmp_path / "run") as path:
    assert path == tmp_path / "run" and path.is_dir()
    with pytest.raises(CheckpointError) as error:
      with workdir_lock.holding(path):
        pass
    assert re.fullmatch(
      rf"The workdir {path} is in use by process {os.getpid()} on "
      rf"{socket.gethostname()}, started [-0-9T:+]+\. Wait until [^\n]+",
      str(error.value),
    )
  with workdir_lock.holding(path):  # it is free again
    pass
  assert not (path / workdir_lock.HOLDER).exists()


def describe(path, **holder):
  (path / workdir_lock.HOLDER).write_text(json.dumps(holder))


def test_a_run_waits_for_an_evaluation(tmp_path, capsys):
  described = threading.Event()

  def describe_a_run():
    described.set()
    describe(tmp_path, job="run")

  with workdir_lock.holding_or_beside(tmp_path):
    threading.Timer(0.3, describe_a_run).start()
    with pytest.raises(CheckpointError, match="in use"):
      with workdir_lock.holding(tmp_path):
        pass
    assert described.is_set()  # it was not refused before
  assert capsys.readouterr().out.count("waiting for it.") == 1


@pytest.mark.parametrize("seconds", [0.0, 0.3])
def test_a_run_on_another_host_may_be_lost(tmp_path, monkeypatch, seconds):
  monkeypatch.setattr(workdir_lock, "_LEASE_SECONDS", seconds)
  with workdir_lock.holding(tmp_path):
    describe(tmp_path, host="elsewhere", pid=1, job="run", started="once")
    began = time.monotonic()
    with pytest.raises(CheckpointError, match="process 1 on elsewhere"):
      with workdir_lock.holding(tmp_path):
        pass
    assert time.monotonic() - began >= seconds


def test_it_is_free_after_an_error(tmp_path):
  with pytest.raises(KeyboardInterrupt):
    with workdir_lock.holding(tmp_path):
      raise KeyboardInterrupt
  with workdir_lock.holding(tmp_path):
    pass


def test_files_that_are_left_behind_lock_nothing(tmp_path):
  (tmp_path / workdir_lock.LOCK).write_text("")
  holder = tmp_path / workdir_lock.HOLDER
  holder.write_text('{"host": "gone", "pid": 1, "started": "once"}')
  with workdir_lock.holding(tmp_path):
    assert f'"pid": {os.getpid()},' in holder.read_text()


def test_a_run_that_does_not_say_which_it_is_is_refused_too(tmp_path):
  with workdir_lock.holding(tmp_path):
    (tmp_path / workdir_lock.HOLDER).write_text("{")
    with pytest.raises(CheckpointError, match="in use by another run"):
      with workdir_lock.holding(tmp_path):
        pass


def test_results_beside_a_run_go_to_a_folder_of_their_own(tmp_path, capsys):
  with workdir_lock.holding_or_beside(tmp_path) as alone:
    assert alone == tmp_path
    with workdir_lock.holding_or_beside(tmp_path) as beside:
      assert beside == tmp_path / workdir_lock.WHILE_RUNNING
  output = capsys.readouterr().out
  assert f"is in use by process {os.getpid()} on" in output
  assert f"the results are written to {beside}." in output


def test_a_held_job_gets_its_absolute_path(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)

  @workdir_lock.held
  def job(config, workdir):
    assert (workdir / workdir_lock.HOLDER).is_file()
    return config, workdir

  assert job(1, "run") == (1, tmp_path / "run")
  assert not (tmp_path / "run" / workdir_lock.HOLDER).exists()


def test_an_empty_workdir_is_refused():
  with pytest.raises(ValueError, match="`workdir` is empty"):
    with workdir_lock.holding(""):
      pass


def test_a_file_system_without_locks_is_named(tmp_path, monkeypatch):
  def no_locks(*args, **kwargs):
    raise OSError(37, "No locks available")

  monkeypatch.setattr(workdir_lock.filelock.FileLock, "acquire", no_locks)
  with pytest.raises(CheckpointError, match="cannot be locked.*No locks avail"):
    with workdir_lock.holding(tmp_path):
      pass


@pytest.mark.parametrize("refused", [True, False])
def test_the_first_process_decides_for_all(tmp_path, monkeypatch, refused):
  monkeypatch.setattr(jax, "process_index", lambda: 1)
  monkeypatch.setattr(
    exchange, "gather_processes", lambda own: np.array([[refused, False], own])
  )
  if refused:
    with pytest.raises(CheckpointError, match="in use"):
      with workdir_lock.holding(tmp_path):
        pass
  else:
    with workdir_lock.holding(tmp_path):
      assert not (tmp_path / workdir_lock.HOLDER).exists()


@pytest.mark.slow
def test_a_killed_process_holds_nothing(tmp_path):
  with subprocess.Popen(
    [sys.executable, "-c", HOLD, str(tmp_path)],
    cwd=ROOT,
    stdout=subprocess.PIPE,
    text=True,
  ) as process:
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    with pytest.raises(CheckpointError, match=f"by process {process.pid} on"):
      with workdir_lock.holding(tmp_path):
        pass
    process.send_signal(signal.SIGKILL)
    process.wait()
  assert (tmp_path / workdir_lock.HOLDER).is_file()  # left behind
  with workdir_lock.holding(tmp_path):
    pass
