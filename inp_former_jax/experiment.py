"""Makes what a run needs from its config: data, model, optimizer, identity."""

import functools
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import optax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from inp_former_jax.atomic import write_json
from inp_former_jax.data import few_shot, holdout, loader, mixing
from inp_former_jax.data.augment import AUGMENTATIONS
from inp_former_jax.data.demo import parts
from inp_former_jax.data.errors import DataError
from inp_former_jax.data.layouts import registry
from inp_former_jax.data.layouts.tree import absolute
from inp_former_jax.data.records import Dataset
from inp_former_jax.data.tfds.source import read_tfds
from inp_former_jax.data.transforms import Preprocessing
from inp_former_jax.field_names import SOURCE_FIELDS, naming_fields
from inp_former_jax.inference.record_batches import Reading
from inp_former_jax.training import identity as identity_of
from inp_former_jax.training import model_state, optimizer
from inp_former_jax.training.input_waits import InputWaits
from inp_former_jax.training.model_state import ModelSettings, ModelState
from inp_former_jax.training.progress import TrainingLog, announce
from inp_former_jax.weights.encoders import get_encoder


def read_dataset(config: ConfigDict, workdir: pathlib.Path) -> Dataset:
  """Reads the records of the data set that `config.data` names.

  Args:
    config: The config of the run.
    workdir: The folder that the demo data set is written to if no root is
      given.

  Returns:
    The records. `config.calibration.holdout` of the normal training images are
    validation records. In few-shot training, the training records are those
    drawn of the rest.

  Raises:
    DataError: If the layout is unknown, the folder does not have this layout,
      or a category has fewer images than shots.
  """
  data = config.data
  if data.tfds and data.sources:
    raise DataError(
      "config.data.tfds and config.data.sources are both set; set only one."
    )
  if data.tfds:
    dataset = read_tfds(data.tfds, data.tfds_dir)
    dataset = mixing.keep_categories(dataset, data.categories, data.tfds_dir)
  elif data.sources:
    mixing.require_roots(data.sources)
    read = functools.partial(_read_layout, config, workdir)
    with naming_fields(SOURCE_FIELDS):
      dataset = mixing.read_sources(data.sources, read)
    dataset = mixing.keep_categories(dataset, data.categories, workdir)
  else:
    dataset = _read_layout(
      config, workdir, data.layout, data.root, tuple(data.categories)
    )
  dataset = holdout.hold_out(
    dataset,
    config.calibration.holdout,
    per_category=max(data.shots, 1),
    in_total=0 if data.shots else config.batch_size,
  )
  if data.shots:
    dataset = few_shot.draw_shots(dataset, data.shots, config.seed)
  return dataset


def _read_layout(
  config: ConfigDict,
  workdir: pathlib.Path,
  layout: str,
  root: str | os.PathLike,
  categories: Sequence[str],
) -> Dataset:
  if layout == "demo":
    root = absolute(root or workdir / "demo_data")
    if not root.exists():
      announce("Drawing the demo's parts ...")
    root = parts.write_demo_dataset(root, seed=config.seed)
    layout = "mvtec"
  return registry.read_layout(
    layout,
    root,
    categories,
    images=config.data.realiad_images,
    jsons=config.data.realiad_jsons,
  )


def describe(dataset: Dataset) -> str:
  """Describes a data set for the user, in a line with its numbers of images.

  Args:
    dataset: The data set of a run.
  """
  categories = len(dataset.categories)
  kept = ""
  if dataset.validation:
    kept = f"{len(dataset.validation):,} kept for calibration, "
  return (
    f"{dataset.name}: {categories} "
    f"{'category' if categories == 1 else 'categories'}, "
    f"{len(dataset.train):,} images to train on, {kept}"
    f"{len(dataset.test):,} to test."
  )


def log_shots(
  config: ConfigDict, dataset: Dataset, workdir: pathlib.Path
) -> None:
  """Writes few_shot.json, the images drawn of each category.

  Args:
    config: The config of the run; nothing is written without shots.
    dataset: The data set that `read_dataset` returned.
    workdir: The folder of the run.
  """
  if not config.data.shots or jax.process_index() != 0:
    return
  content = {
    "shots": config.data.shots,
    "seed": config.seed,
    "images": few_shot.shots_table(dataset),
  }
  write_json(workdir / "few_shot.json", content)


def preprocessing(config: ConfigDict) -> Preprocessing:
  """Returns the sizes to which a run resizes and crops its images.

  Args:
    config: The config of the run; `data` and the encoder's name are read.

  Raises:
    ValueError: If the crop is larger than the resized image, or cannot be cut
      into the encoder's patches; or if the encoder is unknown.
  """
  data = config.data
  sizes = Preprocessing.from_sides(
    data.resize,
    data.crop,
    resize_width=data.resize_width,
    crop_width=data.crop_width,
  )
  spec = get_encoder(config.model.encoder)
  return sizes.require_patches(spec.patch_size)


def reading(config: ConfigDict) -> Reading:
  """Returns the settings by which a run reads images to predict them.

  Args:
    config: The config of the run; `evaluation` and `data` are read.
  """
  return Reading(
    batch_size=config.evaluation.batch_size,
    num_workers=config.data.num_workers,
    num_threads=config.data.num_threads,
  )


def model_settings(config: ConfigDict) -> ModelSettings:
  """Returns the settings that decide the structure of a run's model.

  Args:
    config: The config of the run; `model` is read.
  """
  model = config.model
  return ModelSettings(
    encoder=model.encoder,
    num_prototypes=model.num_prototypes,
    use_inps=model.use_inps,
    dtype=model.dtype,
    attention=model.attention,
    remat=model.remat,
  )


def create_model(
  config: ConfigDict, mesh: Mesh, workdir: pathlib.Path
) -> ModelState:
  """Builds the model of a run on the mesh and loads its encoder.

  Args:
    config: The config of the run.
    mesh: The devices that its arrays are placed on.
    workdir: The folder of the run. If the config names no weights and the
      folder holds the `encoder.safetensors` of a converted checkpoint, that
      is the encoder.

  Returns:
    The model; no device ever holds more than its shard.

  Raises:
    FileNotFoundError, ValueError: If the encoder's weights cannot be found or
      read, see `pretrained.load_weights`.
  """
  source = model_state.encoder_source(config.model.encoder_weights, workdir)
  return model_state.create(
    model_settings(config), mesh, encoder_weights=source, seed=config.seed
  )


def num_examples(config: ConfigDict, num_images: int) -> int:
  """Returns the examples of an epoch, which few-shot training multiplies.

  Args:
    config: The config of the run; `data.shots` is read.
    num_images: The number of images to train on.
  """
  return num_images * (len(AUGMENTATIONS) if config.data.shots else 1)


def num_steps(config: ConfigDict, num_examples: int) -> int:
  """Returns the steps of a whole run, from `config.steps` or `config.epochs`.

  Args:
    config: The config of the run; `steps`, `epochs` and `batch_size` are read.
    num_examples: The number of examples in an epoch.

  Raises:
    ValueError: If there would not be a single step.
  """
  total = config.steps or config.epochs * loader.steps_per_epoch(
    num_examples, config.batch_size
  )
  if total < 1:
    raise ValueError(
      f"config.steps={config.steps} and config.epochs={config.epochs} give no "
      "training step; set one of them above 0."
    )
  return total


def make_schedule(config: ConfigDict, total_steps: int) -> optax.Schedule:
  """Returns the learning rate of a run as a function of the step.

  Args:
    config: The config of the run; `optimizer` is read.
    total_steps: The number of steps of the whole run. The warm-up takes a fifth
      of them at most.

  Raises:
    ValueError: If the warm-up has a negative number of steps.
  """
  settings = config.optimizer
  return optimizer.warm_cosine(
    total_steps,
    min(settings.warmup_steps, total_steps // 5),
    settings.peak_learning_rate,
    settings.final_learning_rate,
  )


def make_optimizer(
  config: ConfigDict, schedule: optax.Schedule
) -> optax.GradientTransformation:
  """Returns the optimizer that `config.optimizer` describes.

  Args:
    config: The config of the run; `optimizer` is read.
    schedule: The learning rate as a function of the step.
  """
  settings = config.optimizer
  return optimizer.make_optimizer(
    schedule,
    b1=settings.b1,
    b2=settings.b2,
    eps=settings.eps,
    weight_decay=settings.weight_decay,
    max_norm=settings.max_norm,
  )


def training_log(
  config: ConfigDict,
  workdir: pathlib.Path,
  schedule: optax.Schedule,
  start: int,
  total_steps: int,
  waits: InputWaits | None = None,
) -> TrainingLog:
  """Returns the log of a run.

  Args:
    config: The config of the run; `log` and `batch_size` are read.
    workdir: The folder that the logs are written to.
    schedule: The learning rate of each step.
    start: The number of steps already taken.
    total_steps: The number of steps of the whole run.
    waits: The batches, if their waits are to be compared between processes.
  """
  return TrainingLog(
    workdir,
    schedule,
    start=start,
    total=total_steps,
    batch_size=config.batch_size,
    every_steps=config.log.every_steps,
    tensorboard=config.log.tensorboard,
    compare_waits=waits.compare if waits else None,
  )


def identity(
  config: ConfigDict, dataset: Dataset, encoder_sha256: str
) -> dict[str, Any]:
  """Returns the identity of a run, which its checkpoints record.

  `checkpoint.Checkpointer` compares the two when a run is resumed.

  Args:
    config: The config of the run.
    dataset: The data set of the run. Its training images are recognised by
      category and name, so that their folder may move but not change.
    encoder_sha256: The checksum of the encoder's file, in hex.

  Returns:
    The config as a nested dict, with `encoder` and `training_images` added.
  """
  return config.to_dict() | {
    "encoder": {"name": config.model.encoder, "sha256": encoder_sha256},
    "training_images": identity_of.training_images(dataset),
  }
