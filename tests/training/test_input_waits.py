"""A process that waits for its input longer than the others is named."""

import re
import time

import jax
import numpy as np
import pytest

from inp_former_jax.processes import exchange
from inp_former_jax.training.input_waits import InputWaits, describe_straggler


@pytest.mark.parametrize(
  "shares, named",
  [
    ([0.02, 0.03, 0.6, 0.01], "process 2 waited for its input 60% .* 2%,"),
    ([0.0, 0.3], "process 1 .* 30%"),
    ([0.02, 0.03, 0.1, 0.01], ""),  # matters little
    ([0.7, 0.72, 0.74, 0.71], ""),  # all of them wait
  ],
)
def test_a_straggler_is_named(shares, named):
  found = describe_straggler(np.array(shares, np.float32))
  if named:
    assert re.search(named, found)
  else:
    assert found == ""


def slow_batches(seconds):
  while True:
    time.sleep(seconds)
    yield {"image": np.zeros(1)}


def test_waits_of_two_processes_are_compared(monkeypatch, capsys):
  monkeypatch.setattr(jax, "process_count", lambda: 2)
  monkeypatch.setattr(
    exchange, "gather_processes", lambda own: np.stack([np.float32(0), own])
  )
  waits = InputWaits(slow_batches(0.02))
  for _ in range(5):
    next(waits)
  found = waits.compare(0.2, 40.0)
  assert found["images_per_second_per_process"] == 20
  assert found["input_wait_max"] >= 0.5
  assert "Warning: process 1 waited" in capsys.readouterr().out
  assert waits.compare(0.2, 40.0)["input_wait_max"] == 0  # starts again


def test_one_process_has_nothing_to_compare():
  waits = InputWaits(slow_batches(0))
  next(waits)
  assert waits.compare(1.0, 1.0) == {}
