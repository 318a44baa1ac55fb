"""Loads the teacher and computes its groups for all views."""

import dataclasses
import functools
import pathlib
import sys
from collections.abc import Callable, Mapping

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from inp_former_jax import sharding
from inp_former_jax.data import transforms
from inp_former_jax.distillation.student import encoder_groups
from inp_former_jax.distillation.targets import CachedTargets, compute_targets
from inp_former_jax.distillation.views import Views
from inp_former_jax.models import placement, vit
from inp_former_jax.training.checkpoints import workdirs
from inp_former_jax.weights import pretrained


@dataclasses.dataclass(frozen=True)
class Teacher:
  """An encoder with its weights, to learn from.

  Attributes:
    encoder: The encoder, on the default device.
    sha256: Checksum of the weights' file, in hex.
  """

  encoder: vit.VisionTransformer
  sha256: str


def load_teacher(name: str, weights: str) -> Teacher:
  """Loads an encoder to learn from.

  Args:
    name: The encoder's name, a key of `encoders.ENCODERS`.
    weights: Source of the encoder's weights, see `pretrained.load_weights`.

  Returns:
    The teacher.

  Raises:
    FileNotFoundError, ValueError: If the weights cannot be found or read (see
      `pretrained.load_weights`), or are random, which teaches nothing.
  """
  if weights == pretrained.RANDOM:
    raise ValueError(
      f"`encoder_weights` is {weights!r}, but from a random encoder there is "
      'nothing to learn. Name a file, or leave it empty ("") for the published '
      f"weights of {name}."
    )
  return Teacher(*pretrained.load_with_checksum(name, weights))


def prepare_targets(
  teacher: Teacher,
  views: Mapping[str, Views],
  mesh: Mesh,
  workdir: pathlib.Path,
  *,
  batch_size: int,
) -> dict[str, CachedTargets]:
  """Computes the teacher's groups for all views, unless that has been done.

  Args:
    teacher: The encoder to learn from.
    views: The views of each split, by name of the split.
    mesh: The devices over which a batch is spread.
    workdir: Folder of the run, whose folder `targets` gets the groups.
    batch_size: Number of views per batch, over all devices.

  Returns:
    The targets of each split, by name of the split.

  Raises:
    CheckpointError: If there is too little space, or if the workdir holds
      targets of other views or of another teacher.
    DataError: If an image cannot be read.
  """
  variant = teacher.encoder.variant
  size = next(iter(views.values())).settings.size
  patches = (size // variant.patch_size) ** 2
  shapes = ((size, size, 3), (2, patches, variant.width))
  if not (workdir / "targets").exists():
    per_view = 3 * size**2 + 2 * 2 * patches * variant.width
    total = per_view * sum(len(v) for v in views.values())
    workdirs.prepare_workdir(workdir, total + 500_000_000)
  ask = _make_ask(teacher.encoder, mesh)
  return {
    split: compute_targets(
      views[split],
      ask,
      workdir / "targets" / split,
      views[split].identity()
      | {
        "teacher_sha256": teacher.sha256,
        "split": split,
        "count": len(views[split]),
      },
      batch_size=batch_size,
      shapes=shapes,
      report=functools.partial(_report, split, len(views[split])),
    )
    for split in views
  }


def _make_ask(
  encoder: vit.VisionTransformer, mesh: Mesh
) -> Callable[[np.ndarray], np.ndarray]:
  """Builds a function from images, (B, S, S, 3) uint8, to their groups."""
  graphdef, state = nnx.split(encoder)
  batch_sharding = sharding.batch_sharding(mesh)

  @jax.jit
  @placement.on_mesh(mesh)
  def answer(state, images):
    return encoder_groups(
      nnx.merge(graphdef, state), transforms.normalise(images)
    )

  def ask(images: np.ndarray) -> np.ndarray:
    batch = sharding.to_global(images, batch_sharding)
    return np.asarray(answer(state, batch))

  return ask


def _report(split: str, count: int, done: int) -> None:
  text = f"Teacher: {done} of {count} {split} views"
  if sys.stdout.isatty():
    print(text, end="\n" if done == count else "\r", flush=True)
  elif done == count or done % 512 == 0:
    print(text, flush=True)
