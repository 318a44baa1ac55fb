"""Official INP-Former checkpoints: to this project, and back.

python -m weights_conversion.inp_former to_flax model.pth WORKDIR
python -m weights_conversion.inp_former to_torch WORKDIR model.pth

WORKDIR then evaluates, predicts and goes on training like any other.
"""

import argparse
import dataclasses
import pathlib
import re
import sys
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from inp_former_jax import checkpoint, optimizer
from inp_former_jax.experiment import CONVERTED_ENCODER
from inp_former_jax.models import inp_former, vit
from weights_conversion import files
from weights_conversion.dinov2 import encoder_rules, facebookresearch_arrays
from weights_conversion.rules import (
  Rule,
  add_batch_axis,
  convert_state,
  flatten,
  transpose,
)

_INVERSES = {
  np.asarray: np.asarray,
  transpose: transpose,
  flatten: lambda x: x.reshape(-1, 1, 1),  # (h,) -> (h, 1, 1)
  add_batch_axis: lambda x: x[0],  # (1, M, C) -> (M, C)
}


def model_rules(num_blocks: int) -> list[Rule]:
  """Rule table for a whole INP-Former checkpoint.

  Args:
    num_blocks: Encoder blocks of the model; later ones are not needed.

  Returns:
    Rules to the state of an `INPFormer`.
  """
  encoder = [
    dataclasses.replace(
      rule,
      pattern=r"encoder\." + rule.pattern,
      target=rule.target and "encoder/" + rule.target,
    )
    for rule in encoder_rules(num_blocks)
  ]
  return encoder + trainable_rules()


def trainable_rules() -> list[Rule]:
  """Rule table for the trainable part alone."""
  return [
    Rule(r"prototype_token(?:\.0)?", "prototypes", add_batch_axis),
    *_linear(r"bottleneck\.0\.(fc[12])", r"bottleneck/\1"),
    *_block_rules(r"aggregation\.0\.()", r"extractor\1"),
    *_block_rules(r"decoder\.(\d+)\.", r"decoder/\1"),
  ]


def _block_rules(prefix: str, target: str) -> list[Rule]:
  """Rules of a trainable block; the prefix has one group, used in target."""
  return [
    Rule(prefix + r"norm([12])\.weight", target + r"/norm\2/scale"),
    Rule(prefix + r"norm([12])\.bias", target + r"/norm\2/bias"),
    Rule(prefix + r"attn\.learn_scale", target + "/attn/learn_scale", flatten),
    *_linear(prefix + r"attn\.(q|kv|qkv|proj)", target + r"/attn/\2"),
    *_linear(prefix + r"mlp\.(fc[12])", target + r"/mlp/\2"),
  ]


def _linear(pattern: str, target: str) -> list[Rule]:
  return [
    Rule(pattern + r"\.weight", target + "/kernel", transpose),
    Rule(pattern + r"\.bias", target + "/bias"),
  ]


@dataclasses.dataclass(frozen=True)
class Architecture:
  """What an official checkpoint holds, read off its shapes.

  Attributes:
    variant: Size of the encoder.
    name: The encoder's name; None for a size that has none.
    num_registers: Register tokens of the encoder.
    num_prototypes: INPs.
  """

  variant: vit.Variant
  name: str | None
  num_registers: int
  num_prototypes: int


def read_architecture(
  shapes: Mapping[str, tuple[int, ...]], source: object
) -> Architecture:
  """Reads the sizes of an official INP-Former checkpoint.

  Args:
    shapes: Key -> shape of every array.
    source: What it is (its file), for the error.

  Returns:
    The architecture.

  Raises:
    ValueError: It is no INP-Former checkpoint, or one of unknown depth.
  """
  prototypes = shapes.get("prototype_token", shapes.get("prototype_token.0"))
  scales = shapes.get("decoder.0.attn.learn_scale")
  token = shapes.get("encoder.cls_token")
  if prototypes is None or scales is None or token is None:
    raise ValueError(
      f"{source} is no INP-Former checkpoint: it must hold prototype_token, "
      "encoder.cls_token and decoder.0.attn.learn_scale, and holds "
      f"{', '.join(list(shapes)[:3])}, ..."
    )
  depth = sum(
    key.startswith("encoder.blocks.") and key.endswith(".norm1.weight")
    for key in shapes
  )
  targets = {v.depth: v.target_blocks for v in vit.VARIANTS.values()}
  if depth not in targets:
    raise ValueError(
      f"{source} has an encoder of {depth} blocks; known are "
      f"{', '.join(map(str, targets))}."
    )
  variant = vit.Variant(token[-1], depth, int(np.prod(scales)), targets[depth])
  registers = shapes.get("encoder.register_tokens", (1, 0))[1]
  return Architecture(
    variant, _encoder_name(variant, registers), registers, prototypes[-2]
  )


def _encoder_name(variant: vit.Variant, num_registers: int) -> str | None:
  for name, known in vit.VARIANTS.items():
    if known == variant and num_registers in (0, 4):
      return f"dinov2{'reg' if num_registers else ''}_vit_{name}_14"
  return None


def _shapes(arrays: Mapping[str, np.ndarray]) -> dict[str, tuple[int, ...]]:
  return {key: value.shape for key, value in arrays.items()}


def _abstract_model(architecture: Architecture, dtype=jnp.float32):
  """Graph definition, abstract trainable and frozen state."""
  return inp_former.split(
    nnx.eval_shape(
      lambda: inp_former.INPFormer(
        architecture.variant,
        architecture.num_registers,
        num_prototypes=architecture.num_prototypes,
        dtype=dtype,
        rngs=nnx.Rngs(0),
      )
    )
  )


def load_model(
  arrays: Mapping[str, np.ndarray],
  source: object,
  dtype: jnp.dtype = jnp.float32,
) -> inp_former.INPFormer:
  """Builds an INPFormer with the weights of an official checkpoint.

  Args:
    arrays: The checkpoint, key -> array.
    source: What it is (its file), for the error.
    dtype: Compute dtype.

  Returns:
    The model.

  Raises:
    ValueError: It does not fit; every mismatch is named.
  """
  architecture = read_architecture(_shapes(arrays), source)
  graphdef, trainable, frozen = _abstract_model(architecture, dtype)
  state = nnx.merge_state(trainable, frozen)
  table = model_rules(len(frozen["encoder"]["blocks"]))
  return nnx.merge(graphdef, convert_state(arrays, table, state, source))


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
  architecture = read_architecture(_shapes(arrays), source)
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
    graphdef, _, frozen = _abstract_model(self.architecture)
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
  _, abstract, _ = _abstract_model(architecture)
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


def trainable_to_torch(trainable: nnx.State) -> dict[str, np.ndarray]:
  """The trainable part with the original's names, shapes and order.

  Args:
    trainable: Trainable state of an INPFormer with INPs.

  Returns:
    Key -> float32 array, without the encoder.
  """
  ours = {
    "/".join(map(str, path)): np.asarray(variable.get_value())
    for path, variable in nnx.to_flat_state(trainable)
  }
  table = trainable_rules()
  result = {}
  for name in trainable_names(len(trainable["decoder"])):
    path, inverse = _way_back(name, table)
    result[name] = np.ascontiguousarray(inverse(ours.pop(path)))
  assert not ours, f"not converted: {', '.join(ours)}"
  return result


def _way_back(name: str, table: list[Rule]):
  """Path of a key in our state, and the inverse of its rule's transform."""
  ((rule, match),) = [
    (r, m) for r in table if (m := re.fullmatch(r.pattern, name))
  ]
  return match.expand(rule.target), _INVERSES[rule.transform]


def trainable_names(depth: int) -> list[str]:
  """The original's names of the trainable part, in its order.

  Args:
    depth: Decoder blocks.

  Returns:
    Keys of an official checkpoint, without the encoder's.
  """
  mlp = ["fc1", "fc2"]
  blocks = ["aggregation.0"] + [f"decoder.{i}" for i in range(depth)]
  names = ["prototype_token", *_parameters("bottleneck.0.", mlp)]
  for block in blocks:
    names += _parameters(f"{block}.", ["norm1"])
    if block.startswith("decoder"):
      names.append(f"{block}.attn.learn_scale")
    names += _parameters(f"{block}.attn.", ["q", "kv", "proj"])
    names += _parameters(f"{block}.", ["norm2"])
    names += _parameters(f"{block}.mlp.", mlp)
  return names


def _parameters(prefix: str, layers: list[str]) -> list[str]:
  return [f"{prefix}{x}.{part}" for x in layers for part in ("weight", "bias")]


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
