"""One model for all, for each category, for few images, or for none."""

import json

import numpy as np
import pytest

from inp_former_jax import experiment, protocols, train
from inp_former_jax.data.errors import DataError
from inp_former_jax.training.checkpoints.checkpoint import CheckpointError
from tests.data.layouts import layout_trees
from tests.test_layouts_end_to_end import settings


@pytest.fixture(scope="module")
def root(tmp_path_factory):
  return layout_trees.mvtec(tmp_path_factory.mktemp("protocols") / "parts")


@pytest.fixture
def config(root):
  return settings("mvtec", root)


@pytest.mark.slow
def test_single_class_trains_a_model_for_each(config, root, tmp_path):
  config.protocol = "single_class"
  result = protocols.train_and_evaluate(config, tmp_path)
  assert tuple(result.categories) == ("bolt", "nut")
  alone = config.copy_and_resolve_references()
  alone.protocol = "multi_class"
  alone.data.categories = ("nut",)
  expected = train.train_and_evaluate(alone, tmp_path / "alone")
  assert result.categories["nut"].metrics == expected.categories["nut"].metrics
  table = json.loads((tmp_path / "metrics.json").read_text())
  assert list(table["categories"]) == ["bolt", "nut"]
  assert (tmp_path / "nut" / "checkpoints").is_dir()


def test_single_class_resumes_between_categories(config, tmp_path, monkeypatch):
  config.protocol = "single_class"
  runs = []
  original = train.train_and_evaluate

  def stop_in_the_second(own, workdir, **options):
    runs.append(own.data.categories)
    if own.data.categories == ("nut",) and len(runs) == 2:
      raise KeyboardInterrupt
    return original(own, workdir, **options)

  monkeypatch.setattr(train, "train_and_evaluate", stop_in_the_second)
  with pytest.raises(KeyboardInterrupt):
    protocols.train_and_evaluate(config, tmp_path)
  result = protocols.train_and_evaluate(config, tmp_path)
  assert runs == [("bolt",), ("nut",), ("nut",)]  # bolt not again
  assert set(result.categories) == {"bolt", "nut"}
  # Another config is not mistaken for this one.
  config.evaluation.max_fpr = 0.2
  protocols.train_and_evaluate(config, tmp_path)
  assert runs[3:] == [("bolt",), ("nut",)]


@pytest.mark.slow
def test_single_class_evaluates_again(config, tmp_path):
  config.protocol = "single_class"
  first = protocols.train_and_evaluate(config, tmp_path)
  again = protocols.evaluate_checkpoint(config, tmp_path)
  assert first.mean == again.mean


def test_few_shot_trains_on_what_it_logs(config, tmp_path):
  config.data.shots = 2
  result = protocols.train_and_evaluate(config, tmp_path)
  drawn = json.loads((tmp_path / "few_shot.json").read_text())
  assert drawn["shots"] == 2 and drawn["seed"] == config.seed
  assert {k: len(v) for k, v in drawn["images"].items()} == {
    "bolt": 2,
    "nut": 2,
  }
  assert set(result.categories) == {"bolt", "nut"}
  # An epoch passes over 2 x 2 images in 22 ways.
  config.steps, config.epochs = 0, 1
  assert experiment.num_steps(config, 22 * 4) == 22


@pytest.mark.slow
def test_few_shot_draws_by_the_seed(config, tmp_path):
  config.data.shots = 2
  config.steps = 1
  draws = []
  for seed in (1, 2, 3, 1):
    config.seed = seed
    folder = tmp_path / str(len(draws))
    protocols.train_and_evaluate(config, folder)
    draws.append(json.loads((folder / "few_shot.json").read_text())["images"])
  assert draws[0] == draws[3]
  assert any(draws[0] != other for other in draws[1:3])


def test_more_shots_than_images(config, tmp_path):
  config.data.shots = 5
  with pytest.raises(DataError, match="bolt has 4"):
    protocols.train_and_evaluate(config, tmp_path)


def test_zero_shot_scores_another_data_set(config, tmp_path):
  protocols.train_and_evaluate(config, tmp_path / "trained")
  root = layout_trees.btad(tmp_path / "btad")
  other = settings("btad", root)
  other.protocol = "zero_shot"
  other.zero_shot_checkpoint = str(tmp_path / "trained")
  result = protocols.train_and_evaluate(other, tmp_path / "scored")
  assert set(result.categories) == {"01", "02"}
  assert np.isfinite(list(result.mean.values())).all()
  assert not (tmp_path / "scored" / "checkpoints").exists()
  # Not the scores of the decoder.
  other.protocol = "multi_class"
  decoder = protocols.evaluate_checkpoint(other, tmp_path / "trained")
  assert decoder.mean["pixel_auroc"] != result.mean["pixel_auroc"]


@pytest.mark.parametrize(
  "changes, error, message",
  [
    ({}, ValueError, "zero_shot_checkpoint=WORKDIR"),
    ({"zero_shot_checkpoint": "nowhere"}, CheckpointError, "nowhere"),
    (
      {"zero_shot_checkpoint": "x", "model.use_inps": False},
      ValueError,
      "use_inps",
    ),
  ],
)
def test_zero_shot_without_a_model(config, tmp_path, changes, error, message):
  config.protocol = "zero_shot"
  config.update_from_flattened_dict(changes)
  with pytest.raises(error, match=message):
    protocols.train_and_evaluate(config, tmp_path)


def test_unknown_protocol(config, tmp_path):
  config.protocol = "some_class"
  with pytest.raises(ValueError, match="multi_class, single_class, zero_shot"):
    protocols.train_and_evaluate(config, tmp_path)


def test_super_multi_class_names_and_means(config, root, tmp_path):
  visa = layout_trees.visa(tmp_path / "visa")
  config.data.sources = (("mvtec", str(root), ("nut",)), ("visa", str(visa)))
  result = protocols.train_and_evaluate(config, tmp_path / "run")
  assert list(result.categories) == ["mvtec/nut", "visa/candle", "visa/pcb1"]
  assert set(result.source_means) == {"mvtec", "visa"}
  values = [c.metrics["image_auroc"] for c in result.categories.values()]
  assert result.mean["image_auroc"] == pytest.approx(np.mean(values))
  visa_mean = result.source_means["visa"]["image_auroc"]
  assert visa_mean == pytest.approx(np.mean(values[1:]))
  content = json.loads((tmp_path / "run" / "metrics.json").read_text())
  assert set(content["sources"]) == {"mvtec", "visa"}
  assert "mean of visa" in (tmp_path / "run" / "metrics.csv").read_text()
