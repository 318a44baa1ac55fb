"""A config -> what a run needs: data, model, optimizer, identity."""

import functools
import hashlib
import json
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import optax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from inp_former_jax.atomic import replacing
from inp_former_jax.data import few_shot, loader, mixing
from inp_former_jax.data.demo import parts
from inp_former_jax.data.errors import DataError
from inp_former_jax.data.layouts import registry
from inp_former_jax.data.records import Dataset
from inp_former_jax.data.tfds.source import read_tfds
from inp_former_jax.data.transforms import Preprocessing
from inp_former_jax.inference.record_batches import Reading
from inp_former_jax.training import model_state, optimizer
from inp_former_jax.training.model_state import ModelSettings, ModelState
from inp_former_jax.training.progress import TrainingLog
from inp_former_jax.weights.encoders import get_encoder


def read_dataset(config: ConfigDict, workdir: pathlib.Path) -> Dataset:
  """Reads the records of `config.data`.

  Args:
    config: The run's config.
    workdir: Where the demo data set is written if no root is given.

  Returns:
    Train and test records; in few-shot training those drawn.

  Raises:
    DataError: The layout is unknown, the folder does not hold it, or a
      category has fewer images than shots.
  """
  data = config.data
  if data.tfds and data.sources:
    raise DataError(
      "config.data.tfds and config.data.sources are both set; expected one."
    )
  if data.tfds:
    dataset = read_tfds(data.tfds, data.tfds_dir)
    dataset = mixing.keep_categories(dataset, data.categories, data.tfds_dir)
  elif data.sources:
    read = functools.partial(_read_layout, config, workdir)
    dataset = mixing.read_sources(data.sources, read)
    dataset = mixing.keep_categories(dataset, data.categories, workdir)
  else:
    dataset = _read_layout(
      config, workdir, data.layout, data.root, tuple(data.categories)
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
    root = root or workdir / "demo_data"
    root = parts.write_demo_dataset(root, seed=config.seed)
    layout = "mvtec"
  return registry.read_layout(
    layout,
    root,
    categories,
    images=config.data.realiad_images,
    jsons=config.data.realiad_jsons,
  )


def log_shots(
  config: ConfigDict, dataset: Dataset, workdir: pathlib.Path
) -> None:
  """Writes few_shot.json: the images drawn, by category.

  Args:
    config: The run's config; without shots nothing is written.
    dataset: As `read_dataset` gives it.
    workdir: Of the run.
  """
  if not config.data.shots or jax.process_index() != 0:
    return
  content = {
    "shots": config.data.shots,
    "seed": config.seed,
    "images": few_shot.shots_table(dataset),
  }
  with replacing(workdir / "few_shot.json") as path:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def preprocessing(config: ConfigDict) -> Preprocessing:
  """Sizes of the images of a run.

  Args:
    config: The run's config; `data` is read, and the encoder's name.

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
  """How a run reads the images that it evaluates or predicts.

  Args:
    config: The run's config; `evaluation` and `data` are read.
  """
  return Reading(
    batch_size=config.evaluation.batch_size,
    num_workers=config.data.num_workers,
    num_threads=config.data.num_threads,
  )


def model_settings(config: ConfigDict) -> ModelSettings:
  """Structure of the model of a run.

  Args:
    config: The run's config; `model` is read.
  """
  model = config.model
  return ModelSettings(
    encoder=model.encoder,
    num_prototypes=model.num_prototypes,
    use_inps=model.use_inps,
    dtype=model.dtype,
  )


def create_model(
  config: ConfigDict, mesh: Mesh, workdir: pathlib.Path
) -> ModelState:
  """Builds the model of a run on the mesh, its encoder loaded.

  Args:
    config: The run's config.
    mesh: The devices its arrays go to.
    workdir: Folder of the run. The `encoder.safetensors` that a converted
      checkpoint brings along is the encoder if the config names no weights.

  Returns:
    The model; no device ever holds more than its shard.

  Raises:
    FileNotFoundError, ValueError: If the encoder's weights cannot be found or
      read, see `pretrained.load_encoder`.
  """
  source = model_state.encoder_source(config.model.encoder_weights, workdir)
  return model_state.create(
    model_settings(config), mesh, encoder_weights=source, seed=config.seed
  )


def num_steps(config: ConfigDict, num_examples: int) -> int:
  """Steps of a whole run: `config.steps`, or else `config.epochs`.

  Args:
    config: The run's config; `steps`, `epochs` and the batch size are read.
    num_examples: Number of examples in an epoch.

  Raises:
    ValueError: If they make no step.
  """
  total = config.steps or config.epochs * loader.steps_per_epoch(
    num_examples, config.batch_size
  )
  if total < 1:
    raise ValueError(
      f"config.steps={config.steps} and config.epochs={config.epochs} make no "
      "training step; set one of them above 0."
    )
  return total


def make_schedule(config: ConfigDict, total_steps: int) -> optax.Schedule:
  """The learning rate of a run; a warm-up takes at most a fifth of it."""
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
  """The optimizer of `config.optimizer`."""
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
) -> TrainingLog:
  """The log of a run.

  Args:
    config: The run's config; `log` is read, and the batch size.
    workdir: Folder that the logs go to.
    schedule: Learning rate of a step.
    start: Steps already taken.
    total_steps: Steps of the whole run.
  """
  return TrainingLog(
    workdir,
    schedule,
    start=start,
    total=total_steps,
    batch_size=config.batch_size,
    every_steps=config.log.every_steps,
    tensorboard=config.log.tensorboard,
  )


def identity(
  config: ConfigDict, dataset: Dataset, encoder_sha256: str
) -> dict[str, Any]:
  """What a checkpoint belongs to, see `checkpoint.Checkpointer`.

  Args:
    config: The run's config.
    dataset: Its training images count by category and name, so that the
      folder may move but not change.
    encoder_sha256: Of the encoder's file.

  Returns:
    The config as a nested dict, with `encoder` and `training_images`.
  """
  names = sorted(f"{r.category}/{r.image.name}" for r in dataset.train)
  digest = hashlib.sha256("\n".join(names).encode()).hexdigest()
  return config.to_dict() | {
    "encoder": {"name": config.model.encoder, "sha256": encoder_sha256},
    "training_images": {"count": len(names), "sha256": digest},
  }
