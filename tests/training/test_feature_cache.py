"""One run at a time computes features, all of its processes together."""

import threading

import filelock
import jax
import numpy as np
import pytest

from inp_former_jax.processes import exchange
from inp_former_jax.training import feature_cache


@pytest.fixture
def path(tmp_path, monkeypatch):
  monkeypatch.setattr(feature_cache, "_LOCK_SECONDS", 0.05)
  return tmp_path / "a.rows"


def test_a_run_waits_for_another(path, capsys):
  other = filelock.FileLock(f"{path}.filling.lock", thread_local=False)
  other.acquire()
  threading.Timer(0.3, other.release).start()
  with feature_cache._filling(path):
    assert not other.is_locked
    with pytest.raises(filelock.Timeout):
      other.acquire(timeout=0)
  other.acquire(timeout=0)
  other.release()
  (line,) = capsys.readouterr().out.splitlines()
  assert line == f"Another run is computing {path}; waiting for it."


def test_the_other_processes_wait_for_the_first(path, monkeypatch):
  first = [False, False, True]  # whether the first process has the lock
  met = []

  def gather(own):
    met.append(own.tolist())
    return np.array([[first[len(met) - 1]], own])

  monkeypatch.setattr(jax, "process_index", lambda: 1)
  monkeypatch.setattr(exchange, "gather_processes", gather)
  with feature_cache._filling(path):
    assert met == [[False]] * 3
  assert not path.with_name("a.rows.filling.lock").exists()
