"""A tiny trained run that the tests of this folder share."""

import dataclasses

import pytest

from inp_former_jax import train
from inp_former_jax.evaluation.results import Evaluation
from inp_former_jax.inference.predictor import Predictor
from tests.conftest import tiny_config


@dataclasses.dataclass(frozen=True)
class TinyRun:
  workdir: object
  config: object
  result: Evaluation


@pytest.fixture(scope="session")
def tiny_run(dataset_root, tmp_path_factory) -> TinyRun:
  """A workdir, its config, and the evaluation at the end of its training."""
  workdir = tmp_path_factory.mktemp("run")
  config = tiny_config(dataset_root)
  config.steps = 2
  return TinyRun(workdir, config, train.train_and_evaluate(config, workdir))


@pytest.fixture(scope="session")
def predictor(tiny_run) -> Predictor:
  return Predictor.load(tiny_run.workdir, batch_size=4)
