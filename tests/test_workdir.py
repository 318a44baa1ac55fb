"""A workdir belongs to one run: its identity, its path, and what it holds."""

import json
import pathlib
import shutil

import pytest

from inp_former_jax import (
  config_files,
  evaluate,
  experiment,
  protocols,
  thresholds,
  train,
  workdir_owner,
)
from inp_former_jax.configs import distill as distill_config
from inp_former_jax.data.errors import DataError
from inp_former_jax.inference.calibration import CalibrationError
from inp_former_jax.training.checkpoints import workdir_lock
from inp_former_jax.training.identity import CheckpointError
from tests.conftest import tiny_config


@pytest.fixture(scope="module")
def trained(dataset_root, tmp_path_factory):
  """A config, and a workdir with glob characters that it was trained in."""
  config = tiny_config(dataset_root)
  config.steps = 2
  config.data.categories = ("washer",)
  workdir = tmp_path_factory.mktemp("trained") / "run[1]*?"
  return config, workdir, train.train_and_evaluate(config, workdir)


def started(config, workdir) -> None:
  """Leaves a workdir as a run does that is killed in its first step."""
  workdir.mkdir(parents=True)
  config_files.write_recorded(config, workdir)


def copy(config):
  return config.copy_and_resolve_references()


def test_a_path_with_glob_characters_is_evaluated_and_resumed(trained):
  config, workdir, result = trained
  again = evaluate.evaluate_checkpoint(config, workdir)
  assert again.step == 2 and again.mean == result.mean
  # Restores the optimizer's state too.
  assert train.train_and_evaluate(config, workdir).mean == result.mean


def test_a_random_encoder_is_that_of_the_checkpoint_whatever_the_seed(trained):
  config, workdir, result = trained
  config = copy(config)
  config.seed += 1
  again = evaluate.evaluate_checkpoint(config, workdir)
  assert again.mean == result.mean


def test_another_run_is_refused_before_there_is_a_checkpoint(config, tmp_path):
  started(config, tmp_path / "run")
  other = copy(config)
  other.seed, other.model.num_prototypes = 9, 3
  other.log.every_steps = 7  # may differ
  with pytest.raises(CheckpointError) as error:
    train.train_and_evaluate(other, tmp_path / "run")
  first, *fields, remedy = str(error.value).splitlines()
  assert first == f"Another run was started in {tmp_path / 'run'}:"
  assert fields == [
    "  model.num_prototypes: 6 there, 3 here",
    "  seed: 1 there, 9 here",
  ]
  assert remedy.startswith("It holds no checkpoint yet: delete it")
  # Refused before anything was read or written.
  assert {p.name for p in (tmp_path / "run").iterdir()} <= {
    config_files.RECORDED,
    workdir_lock.LOCK,
  }


def test_another_run_is_refused_beside_a_checkpoint(trained):
  config, workdir, _ = trained
  other = copy(config)
  other.seed = 9
  before = (workdir / config_files.RECORDED).read_text()
  with pytest.raises(CheckpointError, match="seed: 1 there, 9 here") as error:
    train.train_and_evaluate(other, workdir)
  assert "Set these values again, or use another" in str(error.value)
  assert (workdir / config_files.RECORDED).read_text() == before


@pytest.mark.parametrize(
  "job", [protocols.train_and_evaluate, train.train_and_evaluate]
)
def test_the_workdir_of_a_distillation_is_not_trained_in(config, tmp_path, job):
  started(distill_config.get_config(), tmp_path / "run")
  with pytest.raises(CheckpointError) as error:
    job(config, tmp_path / "run")
  assert str(error.value) == (
    f"The workdir {tmp_path / 'run'} belongs to a distillation; this is a "
    "training run. Choose another workdir."
  )


@pytest.mark.parametrize(
  "job", [protocols.train_and_evaluate, protocols.evaluate_checkpoint]
)
def test_the_record_of_a_distillation_is_not_the_config_to_train_with(
  tmp_path, job
):
  started(distill_config.get_config(), tmp_path / "run")
  # As the main command does with a workdir and no config.
  config = config_files.load_config(tmp_path / "run")
  with pytest.raises(ValueError, match="that of a distillation; expected that"):
    job(config, tmp_path / "run")


def test_a_distillation_is_not_calibrated(tmp_path):
  started(distill_config.get_config(), tmp_path / "run")
  for images in (thresholds.held_out, thresholds.categories_of):
    with pytest.raises(CalibrationError, match="belongs to a distillation"):
      images(tmp_path / "run")


def test_the_config_is_recorded_before_the_first_step(
  config, tmp_path, monkeypatch
):
  def stop(*args, **kwargs):
    raise KeyboardInterrupt

  monkeypatch.setattr(train.loop, "run", stop)
  with pytest.raises(KeyboardInterrupt):
    train.train_and_evaluate(config, tmp_path / "run")
  recorded = config_files.load_config(tmp_path / "run")
  assert recorded.seed == config.seed
  assert not any((tmp_path / "run" / "checkpoints").iterdir())


def test_a_start_that_failed_early_can_be_corrected(config, tmp_path):
  wrong = copy(config)
  wrong.data.root = str(tmp_path / "nowhere")
  wrong.seed = 9
  with pytest.raises(DataError):
    protocols.train_and_evaluate(wrong, tmp_path / "run")
  wrong = copy(config)
  wrong.model.encoder_weights = str(tmp_path / "nowhere.npz")
  wrong.seed = 8
  with pytest.raises(FileNotFoundError):
    protocols.train_and_evaluate(wrong, tmp_path / "run")
  workdir_owner.require_same_start(config, tmp_path / "run")
  workdir_owner.require_same_protocol(config, tmp_path / "run")


def test_single_class_that_failed_early_can_be_corrected(config, tmp_path):
  config.protocol = "single_class"
  weights = config.model.encoder_weights
  config.model.encoder_weights = str(tmp_path / "nowhere.npz")
  with pytest.raises(FileNotFoundError):
    protocols.train_and_evaluate(config, tmp_path / "run")
  # The record of what never began is replaced, and binds to no protocol.
  config.model.encoder_weights, config.seed = weights, 9

  def refuse(own, workdir):
    assert config_files.load_config(tmp_path / "run").seed == 9
    raise KeyboardInterrupt

  folder = tmp_path / "run"
  with pytest.raises(KeyboardInterrupt):
    protocols._each_category(refuse, config, folder, folder)
  config.protocol = "multi_class"
  workdir_owner.require_same_protocol(config, folder)
  (folder / "washer").mkdir()
  config_files.write_recorded(config, folder / "washer")
  with pytest.raises(ValueError, match="belongs to a run of config.protocol"):
    workdir_owner.require_same_protocol(config, folder)


@pytest.mark.parametrize(
  "job", [train.train_and_evaluate, protocols.train_and_evaluate]
)
@pytest.mark.parametrize("protocol", ["multi_class", "single_class"])
def test_a_second_start_is_refused(
  config, tmp_path, monkeypatch, job, protocol
):
  monkeypatch.setattr(workdir_lock, "_SECONDS", 0.05)
  config.protocol = protocol
  with workdir_lock.holding(tmp_path):
    with pytest.raises(CheckpointError, match="is in use by process"):
      job(config, tmp_path)
  assert not (tmp_path / config_files.RECORDED).exists()


def test_a_run_under_way_is_evaluated_beside_its_results(
  trained, tmp_path, monkeypatch, capsys
):
  monkeypatch.setattr(workdir_lock, "_SECONDS", 0.05)
  config, finished, result = trained
  workdir = tmp_path / "run"
  shutil.copytree(finished, workdir)
  (workdir / "metrics.json").unlink()
  with workdir_lock.holding(workdir):
    again = protocols.evaluate_checkpoint(config, workdir)
  assert again.mean == result.mean
  assert not (workdir / "metrics.json").exists()
  beside = workdir / workdir_lock.WHILE_RUNNING
  assert json.loads((beside / "metrics.json").read_text())["step"] == 2
  assert f"are written to {beside}." in capsys.readouterr().out


@pytest.mark.parametrize(
  "job", [protocols.train_and_evaluate, protocols.evaluate_checkpoint]
)
def test_an_empty_workdir_is_refused(config, job, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  with pytest.raises(ValueError, match="`workdir` is empty"):
    job(config, "")
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
  "categories, message",
  [
    (["../outside"], "'../outside' would be written to .*not inside"),
    (["/outside"], "leads out of"),
    (["."], "leads out of"),
    (["bolt", "BOLT"], "'BOLT' would share .* with the category 'bolt'"),
    (["bolt", "bolt/small"], "'bolt/small' would share"),
    (["caf\u00e9", "cafe\u0301"], "would share"),
    (["checkpoints"], "with the checkpoints of a model"),
  ],
)
def test_categories_have_folders_of_their_own(tmp_path, categories, message):
  with pytest.raises(ValueError, match=message):
    protocols._folders(tmp_path, categories)


def test_categories_of_a_mixture_have_folders_of_their_own(tmp_path):
  names = ["mvtec/nut", "mvtec/bolt", "visa/nut", "..x"]
  folders = protocols._folders(tmp_path, names)
  assert folders == {name: tmp_path / pathlib.Path(name) for name in names}


def test_metrics_of_an_unfinished_category_do_not_finish_it(trained):
  config, workdir, result = trained
  evaluate.evaluate_checkpoint(config, workdir)  # with no other seed
  step, categories = protocols._finished(config, workdir)
  assert step == 2 and categories.keys() == result.categories.keys()
  path = workdir / "metrics.json"
  whole = path.read_text()
  path.write_text(whole.replace('"step": 2', '"step": 1', 1))
  assert protocols._finished(config, workdir) is None
  path.write_text(whole)


def test_a_category_is_finished_after_its_epochs(config, tmp_path, monkeypatch):
  config.steps, config.epochs = 0, 3
  found = iter([(12, {}), (13, {}), None])
  monkeypatch.setattr(
    protocols.report, "read_metrics", lambda *unused: next(found)
  )
  dataset = experiment.read_dataset(config, tmp_path)
  assert len(dataset.train) // config.batch_size * 3 == 12
  assert protocols._finished(config, tmp_path) == (12, {})
  assert protocols._finished(config, tmp_path) is None
  assert protocols._finished(config, tmp_path) is None
