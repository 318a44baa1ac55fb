import contextlib
import csv
import json
import logging
import re

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from PIL import Image

from inp_former_jax import evaluate, train
from inp_former_jax.data.demo import parts
from inp_former_jax.inference import predict_step
from inp_former_jax.training.checkpoints import checkpoint
from inp_former_jax.training.progress import TrainingLog
from tests.conftest import tiny_config


def trained_arrays(workdir, step):
  """Trainable part and optimizer state of a checkpoint, by path.

  It may have been saved by any number of processes and devices.
  """
  arrays = {}
  reader = ocp.StandardCheckpointer()
  for item in ("trainable", "opt_state"):
    path = workdir / "checkpoints" / str(step) / item
    saved = reader.metadata(path).item_metadata.tree
    tree = reader.restore(
      path, jax.tree.map(lambda x: np.empty(x.shape, x.dtype), saved)
    )
    for key, value in jax.tree_util.tree_leaves_with_path(tree):
      arrays[item + jax.tree_util.keystr(key)] = np.asarray(value)
  return arrays


@pytest.fixture(scope="module")
def trained(dataset_root, tmp_path_factory):
  """One training run: config, workdir, result, names of what was compiled."""
  workdir = tmp_path_factory.mktemp("trained")
  config = tiny_config(dataset_root)
  config.evaluation.every_steps = 3
  config.checkpoint.every_steps = 2
  compiled = []

  class Handler(logging.Handler):
    def emit(self, record):
      compiled.extend(
        re.findall(r"Compiling jit\((\w+)\)", record.getMessage())
      )

  predict_step.make_predict_step.cache_clear()  # of other tests' runs
  handler, logger = Handler(), logging.getLogger("jax")
  logger.addHandler(handler)
  with jax.log_compiles(True):
    result = train.train_and_evaluate(config, workdir)
  logger.removeHandler(handler)
  return config, workdir, result, compiled


def test_step_and_prediction_compile_once_in_a_run(trained):
  # 18 training images in batches of 4, and 6 test images per category in
  # batches of 4: an epoch's last batch and a padded batch are among them.
  *_, compiled = trained
  assert compiled.count("train_step") == 1
  assert compiled.count("predict_step") == 1


def test_metrics_cover_all_categories_and_agree_between_files(trained):
  _, workdir, result, _ = trained
  assert set(result.categories) == set(parts.CATEGORIES)
  content = json.loads((workdir / "metrics.json").read_text())
  assert content["step"] == 4
  for name, category in result.categories.items():
    for metric, value in category.metrics.items():
      assert 0 <= value <= 1
      assert content["categories"][name][metric] == pytest.approx(value)
  with open(workdir / "metrics.csv", newline="") as file:
    rows = {row["category"]: row for row in csv.DictReader(file)}
  assert set(rows) == {*parts.CATEGORIES, "mean"}
  aurocs = [c.metrics["image_auroc"] for c in result.categories.values()]
  assert float(rows["mean"]["image_auroc"]) == pytest.approx(
    np.mean(aurocs), abs=1e-6
  )


def evaluations(workdir) -> list[dict[str, float]]:
  """What the log says of the evaluations between the steps."""
  lines = []
  with contextlib.suppress(FileNotFoundError):
    lines = (workdir / "log.jsonl").read_text().splitlines()
  return [line for line in map(json.loads, lines) if "loss" not in line]


def test_log_has_a_line_per_step_with_all_parts(trained):
  config, workdir, *_ = trained
  lines = (workdir / "log.jsonl").read_text().splitlines()
  lines = [json.loads(line) for line in lines]
  assert [line["step"] for line in lines] == [1, 2, 3, 3, 4]
  between = lines.pop(3)  # the evaluation after three steps
  assert 0 <= between["test/image_auroc"] <= 1
  for line in lines:
    assert line["loss"] == pytest.approx(
      line["soft_mining_loss"]
      + config.loss.coherence_weight * line["coherence_loss"],
      rel=1e-5,
    )
    assert line["images_per_second"] > 0
  # A fifth of four steps is no warm-up.
  assert lines[0]["learning_rate"] == pytest.approx(1e-3)


def test_grid_is_a_picture(trained):
  _, workdir, result, _ = trained
  assert len(result.maps) == 3
  with Image.open(workdir / "grid.png") as image:
    assert image.format == "PNG" and min(image.size) > 100


def test_starting_a_finished_run_again_only_evaluates(trained, capsys):
  config, workdir, result, _ = trained
  before = (workdir / "log.jsonl").read_text()
  again = train.train_and_evaluate(config, workdir)
  np.testing.assert_array_equal(again.image_scores, result.image_scores)
  assert (workdir / "log.jsonl").read_text() == before
  assert "mean" in capsys.readouterr().out


def test_evaluating_the_checkpoint_gives_the_same_scores(trained):
  config, workdir, result, _ = trained
  # Neither the number of steps nor the batch size decides what is evaluated.
  config = config.copy_and_resolve_references()
  config.steps, config.evaluation.batch_size = 99, 5
  again = evaluate.evaluate_checkpoint(config, workdir)
  np.testing.assert_allclose(again.image_scores, result.image_scores, rtol=1e-6)
  assert again.step == 4


def test_exact_metrics_agree_with_streaming_ones(trained):
  config, workdir, result, _ = trained
  config = config.copy_and_resolve_references()
  config.evaluation.exact = True
  exact = evaluate.evaluate_checkpoint(config, workdir)
  for name, category in exact.categories.items():
    streaming = result.categories[name].metrics
    for metric, value in category.metrics.items():
      # Six small images have few defective pixels, F1max counts single ones.
      tolerance = 1e-3 if metric == "pixel_f1max" else 1e-4
      assert streaming[metric] == pytest.approx(value, abs=tolerance)


def test_interrupted_run_resumes_to_the_same_bits(trained, tmp_path):
  config, workdir, *_ = trained

  class Interrupted(Exception):
    pass

  original = TrainingLog.step

  def step(self, number, *args, **kwargs):
    original(self, number, *args, **kwargs)
    if number == 3:
      raise Interrupted

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(TrainingLog, "step", step)
    with pytest.raises(Interrupted):
      train.train_and_evaluate(config, tmp_path)
  assert (
    json.loads((tmp_path / "log.jsonl").read_text().splitlines()[-1])["step"]
    == 3
  )
  train.train_and_evaluate(config, tmp_path)
  expected, resumed = trained_arrays(workdir, 4), trained_arrays(tmp_path, 4)
  assert expected.keys() == resumed.keys() and len(expected) > 300
  for key, value in expected.items():
    np.testing.assert_array_equal(resumed[key], value, err_msg=key)
  # The log has every step once.
  lines = (tmp_path / "log.jsonl").read_text().splitlines()
  assert [json.loads(line)["step"] for line in lines] == [1, 2, 3, 3, 4]


@pytest.mark.parametrize("moment", ["evaluating", "logging", "a step later"])
def test_an_evaluation_that_a_kill_prevented_is_made_up_once(
  trained, tmp_path, moment
):
  config, workdir, result, _ = trained
  config = config.copy_and_resolve_references()
  config.checkpoint.best = "image_auroc"  # so that step 3 is saved
  (between,) = evaluations(workdir)

  class Killed(Exception):
    pass

  def kill(*args, **kwargs):
    raise Killed

  def kill_after_step_3(self, number, metrics):
    if number == 4:
      raise Killed

  place, name, replacement = {
    "evaluating": (evaluate, "evaluate", kill),
    "logging": (TrainingLog, "evaluation", kill),
    "a step later": (TrainingLog, "step", kill_after_step_3),
  }[moment]
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(place, name, replacement)
    with pytest.raises(Killed):
      train.train_and_evaluate(config, tmp_path)
  made = [between] if moment == "a step later" else []
  assert evaluations(tmp_path) == made
  train.train_and_evaluate(config, tmp_path)
  assert evaluations(tmp_path) == [between]
  noted = json.loads((tmp_path / "best.json").read_text())
  assert noted["values"] == {
    "3": between["test/image_auroc"],
    "4": result.mean["image_auroc"],
  }


@pytest.mark.parametrize(
  "field, value",
  [
    ("loss.gamma", 2.0),
    ("model.num_prototypes", 5),
    ("data.crop", 56),
    ("seed", 2),
    ("model.encoder", "dinov2_vit_nano_14"),
  ],
)
def test_checkpoint_of_another_config_is_refused(trained, field, value):
  config, workdir, *_ = trained
  config = config.copy_and_resolve_references()
  with config.ignore_type():
    config.update_from_flattened_dict({field: value})
  with pytest.raises(checkpoint.CheckpointError, match=field):
    train.train_and_evaluate(config, workdir)


def test_shorter_run_than_the_checkpoint_is_refused(trained):
  config, workdir, *_ = trained
  config = config.copy_and_resolve_references()
  config.steps = 3
  with pytest.raises(checkpoint.CheckpointError, match="step"):
    train.train_and_evaluate(config, workdir)


def test_checkpoint_of_other_images_is_refused(trained, tmp_path):
  config, workdir, *_ = trained
  config = config.copy_and_resolve_references()
  config.data.root = str(
    parts.write_demo_dataset(
      tmp_path / "more",
      image_size=96,
      train=7,
      test_good=1,
      test_per_defect=1,
      validation=0,
    )
  )
  with pytest.raises(checkpoint.CheckpointError, match="training_images.count"):
    train.train_and_evaluate(config, workdir)


def test_evaluating_at_another_width_is_refused(trained):
  config, workdir, *_ = trained
  config = config.copy_and_resolve_references()
  config.data.crop_width = 56
  with pytest.raises(checkpoint.CheckpointError, match="data.crop_width"):
    evaluate.evaluate_checkpoint(config, workdir)


def test_evaluating_a_workdir_without_checkpoint_makes_nothing(
  config, tmp_path
):
  with pytest.raises(checkpoint.CheckpointError, match="Train a model there"):
    evaluate.evaluate_checkpoint(config, tmp_path / "nowhere")
  assert not (tmp_path / "nowhere").exists()


def test_ablations_train(config, tmp_path):
  config.model.use_inps = False
  config.loss.gamma = 0.0
  config.steps = 2
  config.data.categories = ("washer",)
  result = train.train_and_evaluate(config, tmp_path)
  assert list(result.categories) == ["washer"]
  line = json.loads((tmp_path / "log.jsonl").read_text().splitlines()[-1])
  assert "coherence_loss" not in line


def test_loss_that_is_not_finite_stops_the_run(config, tmp_path):
  config.optimizer.peak_learning_rate = 1e30
  config.steps = 4
  config.checkpoint.every_steps = 1
  with pytest.raises(FloatingPointError, match="peak_learning_rate"):
    train.train_and_evaluate(config, tmp_path)


def test_config_without_steps_is_refused(config, tmp_path):
  config.steps = config.epochs = 0
  with pytest.raises(ValueError, match="config.epochs=0"):
    train.train_and_evaluate(config, tmp_path)
