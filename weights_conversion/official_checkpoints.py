"""Converts official INP-Former checkpoints to workdirs and back."""

import pathlib
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from inp_former_jax.inference import trained
from inp_former_jax.models import inp_former
from inp_former_jax.training import checkpoint, optimizer
from inp_former_jax.training.identity import require_inp_former
from inp_former_jax.training.model_state import CONVERTED_ENCODER
from inp_former_jax.weights import files
from inp_former_jax.weights.dinov2_rules import facebookresearch_arrays
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
  workdir = checkpoint.prepare_workdir(workdir, needed=5 * size)
  if any((workdir / "checkpoints").glob("*")):
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
  folder = workdir / "checkpoints"
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
      checkpoint records; by default `encoder.safetensors` of the workdir.

  Returns:
    The step of the checkpoint.

  Raises:
    CheckpointError: If there is no checkpoint.
    FileNotFoundError: If the encoder's file does not exist.
    ValueError: If the encoder's file is not the one the checkpoint was
      trained with, or the model has no INPs.
  """
  path = encoder or workdir / CONVERTED_ENCODER
  _require_encoder(workdir, path)
  model = trained.load(workdir, encoder_weights=str(path))
  if not model.settings.use_inps:
    raise ValueError(
      f"{workdir} has no INPs: the original knows no such model."
    )
  arrays = trainable_to_torch(model.trainable)
  encoder_arrays = facebookresearch_arrays(files.read_arrays(path), path)
  encoder_named = {f"encoder.{k}": v for k, v in encoder_arrays.items()}
  # The original's order: the prototypes, the encoder, all the rest.
  prototypes = {"prototype_token": arrays.pop("prototype_token")}
  files.write_arrays(target, prototypes | encoder_named | arrays)
  return model.step


def _require_encoder(workdir: pathlib.Path, path: pathlib.Path) -> None:
  """Makes sure that a file is the encoder a checkpoint was trained with."""
  step, identity = checkpoint.read_identity(workdir)
  require_inp_former(workdir / "checkpoints" / str(step), identity)
  if not path.is_file():
    raise FileNotFoundError(
      f"{path} does not exist. Name the encoder's file, "
      f"{identity['encoder.name']} with sha256 {identity['encoder.sha256']}: "
      "--encoder FILE."
    )
  found = files.file_sha256(path)
  if found != identity["encoder.sha256"]:
    raise ValueError(
      f"{path} has the sha256 {found}, the checkpoint was trained with "
      f"{identity['encoder.sha256']} ({identity['encoder.name']})."
    )
