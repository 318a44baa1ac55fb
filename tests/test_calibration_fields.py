"""The images that a run holds out for calibration, and the fields for it."""

import json
import shutil

import pytest

from inp_former_jax import (
  config_files,
  evaluate,
  experiment,
  protocols,
  train,
)
from inp_former_jax.configs import common, folder, mvtec_ad2, mvtec_loco
from inp_former_jax.data.layouts.mvtec import read_mvtec
from inp_former_jax.training.checkpoints import manifest
from inp_former_jax.training.identity import CheckpointError
from tests.conftest import tiny_config


@pytest.fixture
def own_images(dataset_root, tmp_path, config):
  """The config of own images: 20 normal ones, without validation images."""
  root = tmp_path / "washers"
  (root / "normal").mkdir(parents=True)
  for source in dataset_root.glob("*/train/good/*.png"):
    name = f"{source.parents[2].name}_{source.name}"
    shutil.copy(source, root / "normal" / name)
  for i in range(2):
    shutil.copy(source, root / "normal" / f"more_{i}.png")
  shutil.copytree(dataset_root / "washer/test/rust", root / "defect")
  shutil.copytree(dataset_root / "washer/test/good", root / "test_normal")
  config.data.layout, config.data.root = "folder", str(root)
  config.calibration.holdout = 0.1
  return config


def read(config, tmp_path):
  return experiment.read_dataset(config, tmp_path)


def test_the_papers_configs_train_on_all_images():
  for config in (common, mvtec_ad2, mvtec_loco):
    assert config.get_config().calibration.holdout == 0
  assert folder.get_config().calibration.holdout == 0.1
  rates = common.get_config().calibration
  assert (rates.image_rate, rates.pixel_rate) == (0.05, 0.001)


def test_own_images_are_held_out_and_announced(own_images, tmp_path):
  dataset = read(own_images, tmp_path)
  assert (len(dataset.train), len(dataset.validation)) == (18, 2)
  assert experiment.describe(dataset) == (
    "washers: 1 category, 18 images to train on, 2 kept for calibration, "
    "3 to test."
  )
  own_images.calibration.holdout = 0.0
  dataset = read(own_images, tmp_path)
  assert (len(dataset.train), len(dataset.validation)) == (20, 0)
  assert "20 images to train on, 3 to test." in experiment.describe(dataset)


def test_validation_images_of_the_data_set_are_kept(config, tmp_path):
  config.calibration.holdout = 0.5
  dataset = read(config, tmp_path)
  assert dataset == read_mvtec(config.data.root)
  assert (len(dataset.train), len(dataset.validation)) == (18, 9)
  paths = {record.image.parent.parts[-2:] for record in dataset.validation}
  assert paths == {("validation", "good")}


def test_a_batch_and_the_shots_stay_for_training(own_images, tmp_path):
  own_images.batch_size = 19  # 18 would be left
  assert len(read(own_images, tmp_path).train) == 20
  own_images.data.shots = 19
  dataset = read(own_images, tmp_path)
  assert (len(dataset.train), len(dataset.validation)) == (19, 1)


def test_shots_are_drawn_of_the_rest(own_images, tmp_path):
  own_images.calibration.holdout = 0.5
  kept = set(read(own_images, tmp_path).validation)
  own_images.data.shots = 8
  dataset = read(own_images, tmp_path)
  assert set(dataset.validation) == kept
  assert len(dataset.train) == 8 and not set(dataset.train) & kept


@pytest.mark.parametrize(
  "field, value, expected",
  [
    ("holdout", -0.1, "[0, 1)"),
    ("holdout", 1.0, "[0, 1)"),
    ("image_rate", 0.0, "(0, 1)"),
    ("image_rate", 1.0, "(0, 1)"),
    ("pixel_rate", 1.5, "(0, 1)"),
  ],
)
def test_fields_out_of_range_are_refused(
  config, tmp_path, field, value, expected
):
  config.calibration[field] = value
  with pytest.raises(ValueError) as caught:
    train.train_and_evaluate(config, tmp_path / "run")
  assert str(caught.value) == (
    f"config.calibration.{field} is {value}; expected a number within "
    f"{expected}."
  )


@pytest.fixture(scope="module")
def trained(dataset_root, tmp_path_factory):
  config = tiny_config(dataset_root)
  config.steps, config.checkpoint.every_steps = 2, 1
  workdir = tmp_path_factory.mktemp("trained")
  return config, workdir, protocols.train_and_evaluate(config, workdir)


def without(fields: dict, names: tuple[str, ...]) -> dict:
  """The fields of an earlier version, nested or by dotted names."""
  return {k: v for k, v in fields.items() if k.partition(".")[0] not in names}


def test_workdirs_of_earlier_versions_are_evaluated_and_resumed(
  trained, tmp_path
):
  _, workdir, before = trained
  old = tmp_path / "old"
  shutil.copytree(workdir, old)
  shutil.rmtree(old / "checkpoints" / "2")
  for path in (old / "config.json", old / "checkpoints/1/identity/metadata"):
    fields = json.loads(path.read_text())
    assert fields != without(fields, ("calibration", "init_from"))
    path.write_text(json.dumps(without(fields, ("calibration", "init_from"))))
  (old / "checkpoints/1" / manifest.NAME).unlink()
  config = config_files.load_config(old)
  assert config.calibration.holdout == 0
  assert protocols.evaluate_checkpoint(config, old).step == 1
  result = protocols.train_and_evaluate(config, old)
  assert result.step == 2
  assert (result.image_scores == before.image_scores).all()


def test_rates_may_change_but_not_what_is_held_out(own_images, tmp_path):
  own_images.steps = 1
  train.train_and_evaluate(own_images, tmp_path / "run")
  own_images.calibration.image_rate = 0.01
  train.train_and_evaluate(own_images, tmp_path / "run")
  own_images.calibration.holdout = 0.2
  with pytest.raises(CheckpointError, match="training_images.count: 18 there"):
    train.train_and_evaluate(own_images, tmp_path / "run")
  result = evaluate.evaluate_checkpoint(own_images, tmp_path / "run")
  assert result.step == 1
