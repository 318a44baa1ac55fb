"""Every field of a config has a range, which every job checks at its start."""

import math
import pathlib

import numpy as np
import pytest

from inp_former_jax import (
  config_files,
  distill,
  evaluate,
  field_ranges,
  protocols,
  train,
)
from inp_former_jax.configs import common
from inp_former_jax.configs import distill as distill_config


@pytest.mark.parametrize(
  "config, ranges",
  [
    (common, field_ranges.TRAINING),
    (distill_config, field_ranges.DISTILLATION),
  ],
)
def test_every_field_has_a_range(config, ranges):
  fields = dict(field_ranges._leaves(config.get_config()))
  assert fields.keys() == ranges.keys()


@pytest.mark.parametrize(
  "spec",
  [
    *config_files.config_names(),
    "mvtec:single_class,few_shot,large,size=224",
    "folder:no_inps,no_coherence,no_mining,inps=1",
  ],
)
def test_every_config_is_within_the_ranges(spec):
  distils = spec == "distill"
  ranges = field_ranges.DISTILLATION if distils else field_ranges.TRAINING
  config = config_files.load_config(spec)
  field_ranges.check_fields(config, ranges)
  # The command that distils has the job check it; a training job does not
  # take it.
  assert ("views" in config) == distils


@pytest.mark.parametrize(
  "field, value",
  [
    ("seed", -1),
    ("seed", 2**32),
    ("steps", 2**31),
    pytest.param("steps", 10**5000, id="more digits than Python prints"),
    ("epochs", -1),
    ("batch_size", 0),
    ("batch_size", "16"),
    ("batch_size", 16.0),
    ("batch_size", True),
    ("protocol", "some_class"),
    ("cache", "on"),
    ("cache_dir", "a\0b"),
    ("init_from", None),
    ("model.num_prototypes", 0),
    ("model.num_prototypes", -1),
    ("model.num_prototypes", 10**9),
    ("model.use_inps", 1),
    ("model.dtype", "float16"),
    ("model.attention", "fast"),
    ("loss.gamma", math.inf),
    ("loss.coherence_weight", -0.1),
    ("optimizer.peak_learning_rate", -1e-3),
    ("optimizer.peak_learning_rate", math.nan),
    ("optimizer.warmup_steps", -1),
    ("optimizer.weight_decay", "none"),
    ("optimizer.b1", 1.0),
    ("optimizer.b2", -0.5),
    ("optimizer.eps", 0.0),
    ("optimizer.max_norm", -0.1),
    ("data.crop", 10**9),
    ("data.resize", 0),
    ("data.crop_width", -14),
    ("data.categories", "bolt"),
    ("data.categories", (1,)),
    ("data.sources", ("mvtec",)),
    ("data.sources", (("visa", "/data", "candle"),)),
    ("data.sampling", "random"),
    ("data.shots", -1),
    ("data.num_workers", -2),
    ("data.num_threads", 10**6),
    ("evaluation.top_fraction", 0.0),
    ("evaluation.max_fpr", 1.5),
    ("evaluation.size", 10**6),
    ("evaluation.exact", "no"),
    ("calibration.holdout", 1.0),
    ("calibration.pixel_rate", 0.0),
    ("checkpoint.keep", 0),
    ("checkpoint.every_steps", -2),
    ("log.tensorboard", 0),
    ("mesh.data", 0),
    ("mesh.fsdp", -1),
  ],
)
def test_a_value_outside_is_one_line_with_its_field(field, value):
  config = common.get_config()
  section, _, name = field.rpartition(".")
  holder = config[section] if section else config
  with holder.ignore_type():
    holder[name] = value
  with pytest.raises(ValueError) as error:
    field_ranges.check_fields(config)
  message = str(error.value)
  assert message.startswith(f"config.{field} is ") and "; expected " in message
  assert "\n" not in message and len(message) < 300


def test_values_at_the_edges_and_numpy_numbers_are_allowed():
  config = common.get_config()
  config.seed = 2**32 - 1
  config.checkpoint.every_steps = 0
  config.optimizer.peak_learning_rate = 0.0
  config.data.sources = [["visa", "/data/visa", ["candle"]], ("demo", "")]
  with config.ignore_type():
    config.loss.gamma = np.float32(3)
    config.batch_size = np.int64(8)
    config.data.root = pathlib.Path("parts")
    config.evaluation.max_fpr = 1
  field_ranges.check_fields(config)


def test_all_wrong_and_missing_fields_are_named():
  config = common.get_config()
  config.checkpoint.keep = 0
  config.evaluation.max_fpr = 2.0
  del config.loss["gamma"]
  with pytest.raises(ValueError) as error:
    field_ranges.check_fields(config)
  assert sorted(str(error.value).splitlines()) == [
    "config.checkpoint.keep is 0; expected a whole number from 1 to 1000000.",
    "config.evaluation.max_fpr is 2.0; expected a number within (0, 1].",
    "config.loss.gamma is missing; expected a finite number, 0 or more.",
  ]


@pytest.mark.parametrize(
  "job",
  [
    protocols.train_and_evaluate,
    protocols.evaluate_checkpoint,
    train.train_and_evaluate,
    evaluate.evaluate_checkpoint,
  ],
)
def test_every_job_checks_its_config_first(config, tmp_path, job):
  config.model.num_prototypes = 0
  with pytest.raises(ValueError, match="config.model.num_prototypes is 0"):
    job(config, tmp_path / "run")
  assert not (tmp_path / "run" / "checkpoints").exists()


def test_distillation_checks_its_config_first(tmp_path):
  config = distill_config.get_config()
  config.views.min_area = 0.0
  with pytest.raises(ValueError, match="config.views.min_area is 0.0"):
    distill.distill(config, tmp_path / "run")
  assert not (tmp_path / "run" / "targets").exists()
