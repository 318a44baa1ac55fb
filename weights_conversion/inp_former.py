"""Official INP-Former checkpoints: to this project, and back.

python -m weights_conversion.inp_former to_flax model.pth WORKDIR
python -m weights_conversion.inp_former to_torch WORKDIR model.pth

WORKDIR then evaluates, predicts and goes on training like any other.
"""

import argparse
import dataclasses
import pathlib
import sys
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from inp_former_jax.experiment import CONVERTED_ENCODER
from inp_former_jax.models import inp_former, vit
from inp_former_jax.training import checkpoint, optimizer
from inp_former_jax.weights import files
from inp_former_jax.weights.dinov2_rules import (
  encoder_rules,
  facebookresearch_arrays,
)
from inp_former_jax.weights.rules import convert_state
from weights_conversion.inp_former_names import (
  Architecture,
  abstract_model,
  array_shapes,
  load_model,
  read_architecture,
  trainable_to_torch,
)


def to_flax(source: pathlib.Path, workdir: pathlib.Path) -> Architecture:
  """Converts an official checkpoint to a workdir with a checkpoint of step 0.

  Args:
    source: `.pth`, `.safetensors` or `.npz` with the original's names.
    workdir: New or without checkpoints; gets `checkpoints/0` (trainable part,
      a fresh optimizer) and `encoder.safetensors` (every array of the
      encoder, with facebookresearch/dinov2 names).

  Returns:
    What the file holds.

  Raises:
    ValueError: The file does not fit; every mismatch is named.
    CheckpointError: The workdir cannot be written, or has checkpoints.
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
  checkpointer = checkpoint.Checkpointer(
    workdir / "checkpoints",
    {
      "model": {
        "encoder": architecture.name,
        "num_prototypes": architecture.num_prototypes,
        "use_inps": True,
      },
      "encoder": {
        "name": architecture.name,
        "sha256": files.file_sha256(encoder),
      },
    },
  )
  # The schedule is not part of the optimizer's state.
  fresh = optimizer.make_optimizer(lambda step: 0.0).init(trainable)
  checkpointer.save(0, trainable, fresh, {"next_batch": 0})
  checkpointer.wait()
  checkpointer.close()
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
  """Writes the newest checkpoint of a workdir as the original would save it.

  Args:
    workdir: Of a run, or of `to_flax`.
    target: `.pth`, `.safetensors` or `.npz`, with exactly the original's
      keys, shapes and dtypes.
    encoder: The encoder's file, which the checkpoint names by its sha256; by
      default `encoder.safetensors` of the workdir.

  Returns:
    The step of the checkpoint.

  Raises:
    CheckpointError: There is no checkpoint.
    ValueError: The encoder's file is not the one the checkpoint was trained
      with, or the model has no INPs.
  """
  restored = restore(workdir, encoder)
  arrays = trainable_to_torch(restored.trainable)
  encoder_named = {f"encoder.{k}": v for k, v in restored.encoder.items()}
  # The original's order: the prototypes, the encoder, all the rest.
  prototypes = {"prototype_token": arrays.pop("prototype_token")}
  files.write_arrays(target, prototypes | encoder_named | arrays)
  return restored.step


@dataclasses.dataclass(frozen=True)
class Restored:
  """The newest checkpoint of a workdir, with its encoder.

  Attributes:
    step: Training steps it has had.
    architecture: Its sizes.
    trainable: State of extractor, bottleneck and decoder.
    encoder: The encoder's arrays, with facebookresearch/dinov2 names.
  """

  step: int
  architecture: Architecture
  trainable: nnx.State
  encoder: Mapping[str, np.ndarray]

  def model(self) -> inp_former.INPFormer:
    """The float32 model."""
    graphdef, _, frozen = abstract_model(self.architecture)
    table = encoder_rules(len(frozen["encoder"]["blocks"]))
    encoder = convert_state(self.encoder, table, frozen["encoder"], "encoder")
    frozen = nnx.State({"encoder": encoder})
    return nnx.merge(graphdef, self.trainable, frozen)


def restore(
  workdir: pathlib.Path, encoder: pathlib.Path | None = None
) -> Restored:
  """Restores the newest checkpoint of a workdir, without its config.

  Args:
    workdir: Of a run, or of `to_flax`.
    encoder: The encoder's file, see `to_torch`.

  Returns:
    The checkpoint with its encoder.

  Raises:
    CheckpointError, ValueError, FileNotFoundError: See `to_torch`.
  """
  step, identity = checkpoint.read_identity(workdir / "checkpoints")
  arrays = _read_encoder(encoder or workdir / CONVERTED_ENCODER, identity)
  if not identity["model.use_inps"]:
    raise ValueError(
      f"{workdir} has no INPs: the original knows no such model."
    )
  name = identity["model.encoder"]
  variant, num_registers = vit.parse_encoder_name(name)
  architecture = Architecture(
    variant, name, num_registers, identity["model.num_prototypes"]
  )
  _, abstract, _ = abstract_model(architecture)
  device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  checkpointer = checkpoint.Checkpointer(workdir / "checkpoints", identity)
  trainable = checkpointer.restore_trainable(
    checkpoint.abstract(abstract, jax.tree.map(lambda x: device, abstract))
  )
  checkpointer.close()
  return Restored(step, architecture, trainable, arrays)


def _read_encoder(
  path: pathlib.Path, identity: Mapping[str, object]
) -> dict[str, np.ndarray]:
  """The encoder's arrays with facebookresearch/dinov2 names."""
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
  return facebookresearch_arrays(files.read_arrays(path), path)


def main(argv: list[str] | None = None) -> int:
  """Command line; returns the exit code."""
  parser = argparse.ArgumentParser(
    prog="python -m weights_conversion.inp_former", description=__doc__
  )
  commands = parser.add_subparsers(dest="command", required=True)
  forth = commands.add_parser("to_flax", help="official file -> workdir")
  forth.add_argument("source", type=pathlib.Path)
  forth.add_argument("workdir", type=pathlib.Path)
  back = commands.add_parser("to_torch", help="workdir -> official file")
  back.add_argument("workdir", type=pathlib.Path)
  back.add_argument("target", type=pathlib.Path)
  back.add_argument("--encoder", type=pathlib.Path, help="the encoder's file")
  args = parser.parse_args(argv)
  try:
    if args.command == "to_flax":
      found = to_flax(args.source, args.workdir)
      print(
        f"{args.workdir}: {found.name}, {found.num_prototypes} INPs. Use it "
        f"with --workdir={args.workdir} --config.model.encoder={found.name}"
      )
    else:
      step = to_torch(args.workdir, args.target, args.encoder)
      print(f"{args.target}: the checkpoint of step {step}")
  except (ValueError, OSError, ImportError, RuntimeError) as error:
    print(f"error: {error}", file=sys.stderr)
    return 1
  return 0


if __name__ == "__main__":
  sys.exit(main())
