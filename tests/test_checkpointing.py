"""What `config.checkpoint` says, in whole runs."""

import jax
import numpy as np
import pytest

from inp_former_jax import evaluate, train
from inp_former_jax.training.checkpoints import best_checkpoint
from inp_former_jax.training.train_step import jit_train_step


def steps_of(workdir) -> list[int]:
  return sorted(int(path.name) for path in (workdir / "checkpoints").iterdir())


@pytest.mark.slow
def test_the_best_is_kept_evaluated_and_never_resumed_from(
  config, tmp_path, monkeypatch, capsys
):
  config.evaluation.every_steps = 1
  config.checkpoint.best = "image_auroc"
  config.checkpoint.keep = 1
  values = iter([0.5, 0.9, 0.7, 0.6])
  real = best_checkpoint.BestCheckpoint.note

  def note(self, step, metrics):
    assert 0 <= metrics["image_auroc"] <= 1
    real(self, step, metrics | {"image_auroc": next(values)})

  monkeypatch.setattr(best_checkpoint.BestCheckpoint, "note", note)
  train.train_and_evaluate(config, tmp_path)
  assert steps_of(tmp_path) == [2, 4]
  assert evaluate.evaluate_checkpoint(config, tmp_path).step == 4
  config.checkpoint.use = "best"
  assert evaluate.evaluate_checkpoint(config, tmp_path).step == 2
  values = iter([0.6])
  train.train_and_evaluate(config, tmp_path)
  assert "Finished before: step 4 of 4." in capsys.readouterr().out


@pytest.mark.parametrize(
  "best, every_steps, message",
  [
    ("auroc", 1, "'auroc'; the metrics of this data set are image_auroc, "),
    ("sample_auroc", 1, "the metrics of this data set"),
    ("image_auroc", 0, "evaluated only at the end"),
  ],
)
def test_a_best_that_no_evaluation_gives_is_refused(
  config, tmp_path, best, every_steps, message
):
  config.checkpoint.best = best
  config.evaluation.every_steps = every_steps
  with pytest.raises(
    ValueError, match=f"config.checkpoint.best is .*{message}"
  ):
    train.train_and_evaluate(config, tmp_path)
  assert not (tmp_path / "checkpoints").exists()


def test_an_unknown_use_is_refused(config, tmp_path):
  (tmp_path / "checkpoints").mkdir()
  config.checkpoint.use = "last"
  with pytest.raises(ValueError, match="config.checkpoint.use is 'last'"):
    evaluate.evaluate_checkpoint(config, tmp_path)


@pytest.mark.slow
def test_parameters_of_a_bad_last_update_are_neither_saved_nor_evaluated(
  config, tmp_path, monkeypatch
):
  def poisoned(*args, **kwargs):
    step = jit_train_step(*args, **kwargs)

    def call(*arguments, **named):
      (trainable, opt_state), metrics = step(*arguments, **named)
      spoilt = jax.tree.map(
        lambda x: x.at[(0,) * x.ndim].set(np.nan), trainable
      )
      return (spoilt, opt_state), metrics

    return call

  monkeypatch.setattr(train, "jit_train_step", poisoned)
  config.steps = 1
  with pytest.raises(FloatingPointError, match="after step 1 is not finite"):
    train.train_and_evaluate(config, tmp_path)
  assert steps_of(tmp_path) == []
  assert not (tmp_path / "metrics.json").exists()
