"""References that left the unmoved run are met by a neighbouring one."""

import shutil

import numpy as np
import pytest

from tests.conftest import GOLDENS
from weights_conversion.verification import training_run
from weights_conversion.verification.comparison import Comparison, Result

NAME = "tiny_reg4_training.npz"
STEPS = 4


def result(difference: float) -> Result:
  return Result("losses", difference, tolerance=1e-4, relative=True)


def test_the_first_run_within_tolerance_is_taken_and_marked():
  differences = {0: 7e-4, 1: 2e-3, 2: 4e-7}
  seeds = []

  def run(seed):
    seeds.append(seed)
    return [result(differences[seed])]

  (found,) = training_run.nearest_run(run)
  assert seeds == [0, 1, 2]
  assert found.ok and found.difference == 4e-7
  assert found.name == "losses (rounding 2)"


def test_a_run_that_agrees_at_once_is_neither_repeated_nor_marked():
  seeds = []

  def run(seed):
    seeds.append(seed)
    return [result(1e-6)]

  (found,) = training_run.nearest_run(run)
  assert seeds == [0] and found.name == "losses"


def test_no_number_of_tries_hides_what_is_off():
  (found,) = training_run.nearest_run(lambda seed: [result(1.0 + seed)])
  assert not found.ok and found.difference == 1.0


@pytest.fixture(scope="module")
def compare(tmp_path_factory) -> Comparison:
  """The reference run cut to a few steps, its parameters beside it."""
  folder = tmp_path_factory.mktemp("references")
  shutil.copy(GOLDENS / NAME.replace("_training", "_params"), folder)
  arrays = dict(np.load(GOLDENS / NAME))
  arrays["warmup_iters"] = np.asarray(STEPS)
  np.savez(folder / NAME, **arrays)
  return Comparison(folder / NAME)


def test_the_float32_warm_up_gets_the_tries_of_the_whole_run(
  compare, monkeypatch
):
  # A reference that started elsewhere stands for one that bifurcated.
  monkeypatch.setattr(training_run, "ROUNDING", 1e-2)
  run = training_run.ReferenceRun(compare, np.float32)
  for seed in (1, 3):
    history, _ = run.train(seed, STEPS)
    losses = np.array([float(h["loss"]) for h in history])
    monkeypatch.setitem(compare.reference, "losses", losses)
    (found,) = training_run.nearest_run(run.warmup_results)
    assert found.ok, found
    assert found.name.endswith(f"in float32 (rounding {seed})")
