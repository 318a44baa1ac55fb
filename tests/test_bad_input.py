"""Damaged data sets through the whole job: named, and nothing lost."""

import json
import os
import shutil

import huggingface_hub.constants
import pytest
from PIL import Image

from inp_former_jax import evaluate, train
from inp_former_jax.data.errors import DataError
from inp_former_jax.weights import download


@pytest.fixture
def root(dataset_root, tmp_path, config):
  """A copy of one category that a test may damage."""
  root = tmp_path / "copy"
  shutil.copytree(dataset_root / "washer", root / "washer")
  config.data.root = str(root)
  config.steps = 2
  return root


def truncate(file) -> None:
  file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def first(folder):
  return sorted(folder.iterdir())[0]


@pytest.mark.parametrize("num_workers", [0, 1])
def test_truncated_training_image_is_named(root, config, tmp_path, num_workers):
  config.data.num_workers = num_workers
  config.steps = 3
  files = sorted((root / "washer" / "train" / "good").iterdir())
  truncate(files[2])
  with pytest.raises(DataError, match=str(files[2])):
    train.train_and_evaluate(config, tmp_path / "run")


def test_a_named_pipe_among_the_training_images_is_named(
  root, config, tmp_path
):
  path = root / "washer" / "train" / "good" / "x.png"
  os.mkfifo(path)
  with pytest.raises(DataError, match=f"{path} is a named pipe"):
    train.train_and_evaluate(config, tmp_path / "run")


def test_an_animated_test_image_is_named(root, config, tmp_path):
  file = first(root / "washer" / "test" / "good")
  frames = [Image.new("L", (96, 96), level) for level in (0, 255)]
  frames[0].save(file, save_all=True, append_images=frames[1:])
  with pytest.raises(DataError, match=f"{file} holds 2 frames"):
    train.train_and_evaluate(config, tmp_path / "run")


def test_an_image_beyond_the_limit_is_named(
  root, config, tmp_path, monkeypatch
):
  monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 96 * 96 // 2 - 1)
  with pytest.raises(DataError, match=f"{root}.*exceeds limit of 9214 pixels"):
    train.train_and_evaluate(config, tmp_path / "run")


def test_truncated_test_image_is_named_and_training_is_kept(
  root, config, tmp_path
):
  file = first(root / "washer" / "test" / "good")
  whole = file.read_bytes()
  truncate(file)
  with pytest.raises(DataError, match=str(file)):
    train.train_and_evaluate(config, tmp_path / "run")
  file.write_bytes(whole)
  # The checkpoint of the last step is there.
  result = evaluate.evaluate_checkpoint(config, tmp_path / "run")
  assert result.step == 2


def test_defect_without_mask_is_left_out_of_pixel_metrics_only(
  root, config, tmp_path, capsys
):
  train.train_and_evaluate(config, tmp_path / "run")
  capsys.readouterr()
  mask = first(root / "washer" / "ground_truth" / "rust")
  mask.unlink()
  result = evaluate.evaluate_checkpoint(config, tmp_path / "run")
  category = result.categories["washer"]
  assert (category.defective, category.without_mask) == (4, 1)
  output = capsys.readouterr().out
  assert "washer *" in output
  assert "washer 1 of 4" in " ".join(output.split())
  content = json.loads((tmp_path / "run" / "metrics.json").read_text())
  assert content["categories"]["washer"]["defective_without_mask"] == 1


def test_mask_of_another_size_is_named(root, config, tmp_path):
  mask = first(root / "washer" / "ground_truth" / "dent")
  with Image.open(mask) as image:
    image.resize((50, 60)).save(mask)
  with pytest.raises(DataError, match="50x60") as error:
    train.train_and_evaluate(config, tmp_path / "run")
  assert str(mask) in str(error.value)


def test_category_without_training_images_is_named(root, config, tmp_path):
  shutil.rmtree(root / "washer" / "train" / "good")
  with pytest.raises(DataError, match="train.good"):
    train.train_and_evaluate(config, tmp_path / "run")


def test_empty_folder_is_named(config, tmp_path):
  (tmp_path / "empty").mkdir()
  config.data.root = str(tmp_path / "empty")
  with pytest.raises(DataError, match=str(tmp_path / "empty")):
    train.train_and_evaluate(config, tmp_path / "run")


def test_without_test_images_it_trains_and_has_nothing_to_evaluate(
  root, config, tmp_path, capsys
):
  shutil.rmtree(root / "washer" / "test")
  config.evaluation.every_steps = 2
  result = train.train_and_evaluate(config, tmp_path / "run")
  assert result.categories == {} and result.untested == ("washer",)
  assert "No test images" in capsys.readouterr().out
  assert (tmp_path / "run" / "checkpoints" / str(config.steps)).is_dir()
  assert not (tmp_path / "run" / "metrics.json").exists()
  with pytest.raises(DataError, match="no test images"):
    evaluate.evaluate_checkpoint(config, tmp_path / "run")


def test_batch_larger_than_the_data_set_is_refused(root, config, tmp_path):
  config.batch_size = 7
  with pytest.raises(DataError, match="7.*6"):
    train.train_and_evaluate(config, tmp_path / "run")


def test_crop_that_patches_do_not_divide_is_refused(root, config, tmp_path):
  config.data.crop = 75
  with pytest.raises(ValueError, match="70 and 84"):
    train.train_and_evaluate(config, tmp_path / "run")


def test_unknown_layout_is_refused(config, tmp_path):
  config.data.layout = "mvtek"
  with pytest.raises(DataError, match="mvtec"):
    train.train_and_evaluate(config, tmp_path / "run")


def test_no_encoder_weights_is_an_error_never_a_random_encoder(
  root, config, tmp_path, monkeypatch
):
  monkeypatch.setenv("INP_FORMER_CACHE", str(tmp_path / "encoders"))
  # The constants hold what the environment said when they were imported.
  constants = huggingface_hub.constants
  monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
  monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
  config.model.encoder_weights = ""
  with pytest.raises(FileNotFoundError, match="encoder_weights=FILE"):
    train.train_and_evaluate(config, tmp_path / "run")
  config.model.encoder = "dinov2reg_vit_small_14"
  with pytest.raises(download.DownloadError, match="encoder_weights=FILE"):
    train.train_and_evaluate(config, tmp_path / "run")


def test_unknown_dtype_is_refused(root, config, tmp_path):
  config.model.dtype = "float16"
  with pytest.raises(ValueError, match="bfloat16"):
    train.train_and_evaluate(config, tmp_path / "run")
