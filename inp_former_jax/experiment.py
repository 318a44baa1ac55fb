"""A config -> the things a run needs: data, model, shardings, identity."""

import dataclasses
import functools
import hashlib
import json
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh
from ml_collections import ConfigDict

from inp_former_jax import sharding
from inp_former_jax.atomic import replacing
from inp_former_jax.data import few_shot, mixing
from inp_former_jax.data.demo import parts
from inp_former_jax.data.errors import DataError
from inp_former_jax.data.layouts import registry
from inp_former_jax.data.records import Dataset
from inp_former_jax.data.tfds.source import read_tfds
from inp_former_jax.data.transforms import Preprocessing
from inp_former_jax.models import inp_former, vit
from inp_former_jax.training import optimizer
from inp_former_jax.weights import pretrained

CONVERTED_ENCODER = "encoder.safetensors"
DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


@dataclasses.dataclass
class Model:
  """A model split for jitted functions, its arrays on the mesh.

  Attributes:
    graphdef: Its structure.
    trainable: State of extractor, bottleneck and decoder.
    frozen: State of the encoder.
    encoder_sha256: Of the encoder's file, or "random".
  """

  graphdef: nnx.GraphDef
  trainable: nnx.State
  frozen: nnx.State
  encoder_sha256: str


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
  root: str,
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
  """Resize and crop of `config.data`; widths of 0 mean square."""
  data = config.data
  return Preprocessing(
    resize=(data.resize, data.resize_width or data.resize),
    crop=(data.crop, data.crop_width or data.crop),
  )


def _build(config: ConfigDict) -> inp_former.INPFormer:
  model = config.model
  if model.dtype not in DTYPES:
    raise ValueError(
      f"config.model.dtype is {model.dtype!r}; it can be {', '.join(DTYPES)}."
    )
  variant, num_registers = vit.parse_encoder_name(model.encoder)
  return inp_former.INPFormer(
    variant,
    num_registers,
    num_prototypes=model.num_prototypes,
    use_inps=model.use_inps,
    dtype=DTYPES[model.dtype],
    rngs=nnx.Rngs(config.seed),
  )


def create_model(
  config: ConfigDict, mesh: Mesh, workdir: pathlib.Path
) -> Model:
  """Builds the model on the mesh: encoder loaded, the rest initialised.

  Args:
    config: The run's config.
    mesh: Where its arrays go.
    workdir: Its `encoder.safetensors`, which a converted checkpoint brings,
      is the encoder if the config names no weights.

  Returns:
    The model; no device ever holds more than its shard.

  Raises:
    FileNotFoundError, ValueError: The encoder's weights, see
      `pretrained.load_encoder`.
  """
  build = functools.partial(_build, config)
  graphdef, trainable, frozen = inp_former.split(nnx.eval_shape(build))
  own = workdir / CONVERTED_ENCODER
  source = config.model.encoder_weights or (str(own) if own.exists() else "")
  weights = pretrained.load_encoder(
    config.model.encoder, source, frozen["encoder"]
  )

  def initialise(part: int, abstract_state: nnx.State) -> nnx.State:
    # Inside jit, what is not returned is never computed.
    shardings = sharding.parameter_shardings(mesh, abstract_state)
    build_part = jax.jit(
      lambda: inp_former.split(build())[part], out_shardings=shardings
    )
    return build_part()

  if weights.state is None:
    frozen = initialise(2, frozen)
  else:
    state = nnx.State({"encoder": weights.state})
    shardings = sharding.parameter_shardings(mesh, state)
    frozen = pretrained.place(state, shardings)
  return Model(graphdef, initialise(1, trainable), frozen, weights.sha256)


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
