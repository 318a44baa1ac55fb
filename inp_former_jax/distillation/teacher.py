"""The teacher, and its answers for the views of a config."""

import dataclasses
import pathlib
import sys

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from ml_collections import ConfigDict

from inp_former_jax import sharding
from inp_former_jax.data import transforms
from inp_former_jax.distillation import views as viewing
from inp_former_jax.distillation.student import encoder_groups
from inp_former_jax.distillation.targets import CachedTargets, compute_targets
from inp_former_jax.models import vit
from inp_former_jax.training import checkpoint
from inp_former_jax.weights import pretrained


@dataclasses.dataclass(frozen=True)
class Teacher:
  """An encoder with its weights.

  Attributes:
    encoder: On the default device.
    sha256: Of its file.
  """

  encoder: vit.VisionTransformer
  sha256: str


def load_teacher(config: ConfigDict) -> Teacher:
  """Loads the encoder of `config.teacher`.

  Args:
    config: As `configs/distill.py` describes it.

  Raises:
    FileNotFoundError, ValueError: See `pretrained.load_encoder`; or it is
      random, which teaches nothing.
  """
  if config.teacher.weights == pretrained.RANDOM:
    raise ValueError("config.teacher.weights is random: nothing to learn.")
  variant, num_registers = vit.parse_encoder_name(config.teacher.encoder)
  graphdef, abstract = nnx.split(
    nnx.eval_shape(
      lambda: vit.VisionTransformer(variant, num_registers, rngs=nnx.Rngs(0))
    )
  )
  weights = pretrained.load_encoder(
    config.teacher.encoder, config.teacher.weights, abstract
  )
  state = jax.tree.map(jax.numpy.asarray, weights.state)
  return Teacher(nnx.merge(graphdef, state), weights.sha256)


def make_views(config: ConfigDict) -> dict[str, viewing.Views]:
  """The views of both splits.

  Args:
    config: As `configs/distill.py` describes it.

  Raises:
    DataError: A folder, or the shares.
  """
  settings = _view_settings(config)
  return {
    split: viewing.Views(settings, split, config.views[split])
    for split in viewing.SPLITS
  }


def _view_settings(config: ConfigDict) -> viewing.ViewSettings:
  views = config.views
  return viewing.ViewSettings(
    folders=tuple(views.folders),
    shares=tuple(views.shares),
    size=views.size,
    min_area=views.min_area,
    seed=config.seed,
  )


def prepare_targets(
  config: ConfigDict,
  teacher: Teacher,
  views: dict[str, viewing.Views],
  mesh: Mesh,
  workdir: pathlib.Path,
) -> dict[str, CachedTargets]:
  """Computes the teacher's answers for all views, once.

  Args:
    config: As `configs/distill.py` describes it.
    teacher: Who answers.
    views: Of both splits.
    mesh: A batch is spread over all its devices.
    workdir: The answers go to its folder `targets`.

  Raises:
    CheckpointError: Too little space, or answers of another run are there.
    DataError: An image cannot be read.
  """
  size, width = config.views.size, teacher.encoder.variant.width
  patches = (size // vit.PATCH_SIZE) ** 2
  shapes = ((size, size, 3), (2, patches, width))
  if not (workdir / "targets").exists():
    per_view = 3 * size**2 + 2 * 2 * patches * width
    total = per_view * sum(len(v) for v in views.values())
    checkpoint.prepare_workdir(workdir, total + 500_000_000)
  graphdef, state = nnx.split(teacher.encoder)
  batch_sharding = sharding.batch_sharding(mesh)

  @jax.jit
  def answer(state, images):
    return encoder_groups(
      nnx.merge(graphdef, state), transforms.normalise(images)
    )

  def ask(images: np.ndarray) -> np.ndarray:
    images = sharding.to_global(images, batch_sharding)
    return np.asarray(answer(state, images))

  identity = _view_identity(config) | {"teacher_sha256": teacher.sha256}
  return {
    split: compute_targets(
      views[split],
      ask,
      workdir / "targets" / split,
      identity | {"split": split, "count": len(views[split])},
      batch_size=config.batch_size,
      shapes=shapes,
      report=lambda done, split=split: _report(split, done, len(views[split])),
    )
    for split in views
  }


def _view_identity(config: ConfigDict) -> dict:
  """What decides the views; folders may move, their content may not."""
  settings = dataclasses.asdict(_view_settings(config))
  folders = settings.pop("folders")
  settings["images"] = [len(viewing.find_images(f)) for f in folders]
  return settings


def _report(split: str, done: int, count: int) -> None:
  text = f"Teacher: {done} of {count} {split} views"
  if sys.stdout.isatty():
    print(text, end="\n" if done == count else "\r", flush=True)
  elif done == count or done % 512 == 0:
    print(text, flush=True)
