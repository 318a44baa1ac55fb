"""Converts official INP-Former checkpoints to workdirs and back."""

import pathlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from inp_former_jax.inference import trained
from inp_former_jax.models import inp_former
from inp_former_jax.training import optimizer
from inp_former_jax.training.checkpoints import (
  checkpoint,
  place,
  saved_runs,
  workdirs,
)
from inp_former_jax.training.identity import require_inp_former
from inp_former_jax.training.model_state import CONVERTED_ENCODER
from inp_former_jax.weights import files, sources
from inp_former_jax.weights.dinov2_names import EncoderSizes, encoder_shapes
from inp_former_jax.weights.dinov2_rules import facebookresearch_arrays
from inp_former_jax.weights.encoders import EncoderSpec
from inp_former_jax.weights.pretrained import RANDOM
from weights_conversion.inp_former_names import (
  Architecture,
  array_shapes,
  load_model,
  read_architecture,
  trainable_to_torch,
)


def to_flax(source: pathlib.Path, workdir: pathlib.Path) -> Architecture:
  """Converts an official checkpoint to a workdir with a checkpoint of step 0.

  Args:
    source: The official file, `.pth`, `.safetensors` or `.npz` with the
      original's names.
    workdir: The folder to write to, new or without checkpoints. It receives
      `checkpoints/0` (the trainable part and a fresh optimizer) and
      `encoder.safetensors` (every array of the encoder, with
      facebookresearch/dinov2 names).

  Returns:
    The sizes of the model in the file.

  Raises:
    ValueError: If the file does not fit; every mismatch is named.
    CheckpointError: If the workdir cannot be written to, or already has
      checkpoints.
  """
  arrays = files.read_arrays(source)
  architecture = read_architecture(array_shapes(arrays), source)
  if architecture.name is None:
    raise ValueError(
      f"{source} holds an encoder of no known size: {architecture.variant}, "
      f"{architecture.num_registers} registers."
    )
  model = load_model(arrays, source)
  size = sum(value.nbytes for value in arrays.values())
  workdir = workdirs.prepare_workdir(workdir, needed=5 * size)
  folder = place.of_workdir(workdir)
  if folder != workdir / "checkpoints" or any(folder.glob("*")):
    raise checkpoint.CheckpointError(
      f"{workdir} has checkpoints already; name another folder."
    )
  encoder = workdir / CONVERTED_ENCODER
  files.write_arrays(encoder, _encoder_arrays(arrays))
  _, trainable, _ = inp_former.split(model)
  trainable = jax.tree.map(jnp.asarray, trainable)
  identity = {
    "model": {
      "encoder": architecture.name,
      "num_prototypes": architecture.num_prototypes,
      "use_inps": True,
    },
    "encoder": {
      "name": architecture.name,
      "sha256": files.file_sha256(encoder),
    },
  }
  # The schedule is not part of the optimizer's state.
  fresh = optimizer.make_optimizer(lambda step: 0.0).init(trainable)
  with checkpoint.Checkpointer(folder, identity) as checkpointer:
    checkpointer.save(0, trainable, fresh, {"next_batch": 0})
  return architecture


def _encoder_arrays(
  arrays: Mapping[str, np.ndarray],
) -> dict[str, np.ndarray]:
  return {
    key.removeprefix("encoder."): value
    for key, value in arrays.items()
    if key.startswith("encoder.")
  }


def to_torch(
  workdir: pathlib.Path,
  target: pathlib.Path,
  encoder: pathlib.Path | None = None,
) -> int:
  """Writes the newest checkpoint of a workdir as the original saves it.

  Args:
    workdir: The folder of a run, or one that `to_flax` wrote.
    target: The file to write, `.pth`, `.safetensors` or `.npz`, with exactly
      the original's keys, shapes and dtypes.
    encoder: The encoder's file, which must have the sha256 that the
      checkpoint records. By default it is looked for in the workdir
      (`encoder.safetensors`), where the run read it, and under its name on
      this machine (bundled or cached); nothing is downloaded.

  Returns:
    The step of the checkpoint.

  Raises:
    CheckpointError: If there is no checkpoint.
    FileNotFoundError: If the encoder's file is not found.
    ValueError: If the encoder's file is not the one the checkpoint was
      trained with, or the encoder is random, or the model has no INPs.
  """
  path = _find_encoder(workdir, encoder)
  model = trained.load(workdir, encoder_weights=str(path))
  if not model.settings.use_inps:
    raise ValueError(
      f"{workdir} has no INPs: the original knows no such model."
    )
  arrays = trainable_to_torch(model.trainable)
  encoder_arrays = whole_encoder(
    facebookresearch_arrays(files.read_arrays(path), path), model.settings.spec
  )
  encoder_named = {f"encoder.{k}": v for k, v in encoder_arrays.items()}
  # The original's order: the prototypes, the encoder, all the rest.
  prototypes = {"prototype_token": arrays.pop("prototype_token")}
  files.write_arrays(target, prototypes | encoder_named | arrays)
  return model.step


def whole_encoder(
  arrays: Mapping[str, np.ndarray], spec: EncoderSpec
) -> dict[str, np.ndarray]:
  """Adds the arrays that the original's encoder has and a file may lack.

  INP-Former runs neither the mask token, nor the final norm, nor the blocks
  behind the last target block, and the bundled encoder is shipped without
  them; but the original loads a checkpoint only if it has every key. The added
  arrays do nothing: norms have scale 1, and everything else is 0, so that a
  block passes its input on.

  Args:
    arrays: The encoder with facebookresearch/dinov2 names, with every array
      that INP-Former runs.
    spec: The encoder's row of ENCODERS.

  Returns:
    Name -> float32 array, in the original's order.
  """
  variant = spec.variant
  sizes = EncoderSizes(variant.width, variant.depth, spec.num_registers)
  added = {
    name: np.full(shape, _is_norm_scale(name), np.float32)
    for name, shape in encoder_shapes(sizes).items()
  }
  return added | dict(arrays)


def _is_norm_scale(name: str) -> bool:
  return re.fullmatch(r"(.*\.)?norm\d?\.weight", name) is not None


def _find_encoder(
  workdir: pathlib.Path, given: pathlib.Path | None
) -> pathlib.Path:
  """Finds the file of the encoder that a checkpoint was trained with."""
  step, identity = saved_runs.read_identity(workdir)
  require_inp_former(place.of_workdir(workdir) / str(step), identity)
  sha256 = identity["encoder.sha256"]
  if sha256 == RANDOM:
    raise ValueError(
      f"{workdir} was trained on a random encoder, which serves tests only "
      "and is in no file. Train on a real one to export the model."
    )
  encoder = f"{identity['encoder.name']} with sha256 {sha256}"
  if given and not given.is_file():
    raise FileNotFoundError(
      f"{given} does not exist. Name the encoder's file, {encoder}: "
      "--encoder FILE."
    )
  others = []
  for path in [given] if given else _encoder_files(workdir, identity):
    found = files.file_sha256(path)
    if found == sha256:
      return path
    others.append(f"{path} has the sha256 {found}")
  if others:
    raise ValueError(
      f"{'; '.join(others)}; the checkpoint was trained with {encoder}. Name "
      "the file of that encoder: --encoder FILE."
    )
  recorded = identity.get("model.encoder_weights")
  raise FileNotFoundError(
    f"The encoder's file is neither {workdir / CONVERTED_ENCODER} nor "
    f"{f'{recorded!r}, which the run recorded, nor ' if recorded else ''}"
    f"under its name on this machine. Name the file, {encoder}: "
    "--encoder FILE."
  )


def _encoder_files(
  workdir: pathlib.Path, identity: Mapping[str, Any]
) -> Iterator[pathlib.Path]:
  """Yields the files on this machine that may hold a checkpoint's encoder."""
  own = workdir / CONVERTED_ENCODER
  if own.is_file():
    yield own
  # Empty for an encoder by its name, which is no file.
  recorded = identity.get("model.encoder_weights")
  if recorded and (path := pathlib.Path(recorded).expanduser()).is_file():
    yield path
  if cached := sources.find_cached(identity["encoder.name"]):
    yield cached.path
