"""From a folder to a model that answers."""

import dataclasses
import shutil

import jax
import numpy as np
import pytest

from inp_former_jax.data.transforms import Preprocessing, load_image
from inp_former_jax.inference import record_batches, trained
from inp_former_jax.training.checkpoints.checkpoint import (
  Checkpointer,
  CheckpointError,
)
from tests.conftest import GOLDENS
from weights_conversion import official_checkpoints


@pytest.fixture(scope="module")
def run(tiny_run):
  """A workdir, its config, and the evaluation at the end of its training."""
  return tiny_run.workdir, tiny_run.config, tiny_run.result


@pytest.fixture(scope="module")
def model(run) -> trained.TrainedModel:
  return trained.load(run[0])


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
  workdir = tmp_path_factory.mktemp("converted")
  official_checkpoints.to_flax(GOLDENS / "tiny_noreg_params.npz", workdir)
  return workdir


def test_a_workdir_alone_says_all_about_its_model(run, model):
  _, config, _ = run
  assert model.step == config.steps
  assert model.settings.encoder == config.model.encoder
  assert model.preprocessing == Preprocessing((80, 80), (70, 70))
  assert model.map_size == config.evaluation.size


def test_it_answers_as_the_evaluation_did(run, model):
  _, _, result = run
  records = result.records[:4]
  images = np.stack([load_image(r.image, model.preprocessing) for r in records])
  prediction = model.predict(images)
  assert prediction.anomaly_map.shape == (4, 64, 64)
  np.testing.assert_array_equal(prediction.image_score, result.image_scores[:4])
  again = model.predict(jax.numpy.asarray(images))
  np.testing.assert_array_equal(again.anomaly_map, prediction.anomaly_map)


def test_map_size_and_parameters_can_be_exchanged(run, model):
  small = trained.load(run[0], size=32)
  images = np.zeros((1, 70, 70, 3), np.uint8)
  assert small.predict(images).anomaly_map.shape == (1, 32, 32)
  other = model.at(7, jax.tree.map(lambda x: 0 * x, model.trainable))
  assert (other.step, model.step) == (7, 2)
  assert other.predict(images).image_score != model.predict(images).image_score


@pytest.mark.parametrize(
  "images",
  [
    np.zeros((70, 70, 3), np.uint8),
    np.zeros((1, 70, 70, 3), np.float32),
    [np.zeros((70, 70, 3), np.uint8)],
    "part.png",
  ],
)
def test_what_is_no_batch_of_uint8_is_refused(model, images):
  with pytest.raises(ValueError, match="must be a batch .* of uint8"):
    model.predict(images)


def test_it_describes_itself_without_its_arrays(model):
  assert repr(model).startswith("TrainedModel(dinov2reg_vit_femto_14, 6 INPs,")
  assert len(repr(model)) < 250


def test_another_model_than_expected_is_refused(run):
  workdir, config, _ = run
  expected = config.to_dict()
  trained.load(workdir, expected=expected)
  expected["data"]["crop"] = 56
  with pytest.raises(CheckpointError, match="data.crop: 70 there, 56 here"):
    trained.load(workdir, expected=expected)


def test_a_folder_without_checkpoints_is_refused(tmp_path):
  with pytest.raises(CheckpointError, match="No checkpoint in .*nowhere"):
    trained.load(tmp_path / "nowhere")


def test_a_checkpoint_of_something_else_is_refused(tmp_path):
  state = {"x": np.zeros(2, "f4")}
  identity = {"student": {"encoder": "dinov2_vit_tiny_14"}, "seed": 1}
  with Checkpointer(tmp_path / "checkpoints", identity) as checkpointer:
    checkpointer.save(3, state, state, {"next_batch": 3})
  with pytest.raises(CheckpointError, match="not that of an INP-Former.*model"):
    trained.load(tmp_path)
  with pytest.raises(CheckpointError, match="not that of an INP-Former"):
    official_checkpoints.to_torch(tmp_path, tmp_path / "model.npz")


def test_a_converted_checkpoint_brings_its_encoder(converted):
  model = trained.load(converted)
  assert (model.step, model.preprocessing) == (0, None)
  assert model.settings.encoder == "dinov2_vit_nano_14"
  images = np.zeros((1, 56, 56, 3), np.uint8)
  assert np.isfinite(model.predict(images).image_score).all()


def test_another_encoder_than_trained_with_is_refused(converted, tmp_path):
  workdir = tmp_path / "copy"
  shutil.copytree(converted, workdir)
  with pytest.raises(CheckpointError, match="encoder.sha256.*'random' here"):
    trained.load(workdir, encoder_weights="random")


def test_records_need_the_sizes_of_the_images(run, model):
  unknown = dataclasses.replace(model, preprocessing=None)
  reading = record_batches.Reading(batch_size=2)
  with pytest.raises(ValueError, match="sizes"):
    list(record_batches.predict_records(unknown, run[2].records, reading))
