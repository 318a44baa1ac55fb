"""Official INP-Former checkpoints: names, sizes and rules to convert them."""

import dataclasses
import re
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from inp_former_jax.models import inp_former, vit
from inp_former_jax.terminal import shortened
from inp_former_jax.weights.dinov2_rules import encoder_rules
from inp_former_jax.weights.encoders import find_name, get_encoder
from inp_former_jax.weights.rules import (
  Rule,
  Transform,
  add_batch_axis,
  convert_state,
  flatten,
  transpose,
)

_INVERSES: dict[Transform, Transform] = {
  np.asarray: np.asarray,
  transpose: transpose,
  flatten: lambda x: x.reshape(-1, 1, 1),  # (h,) -> (h, 1, 1)
  add_batch_axis: lambda x: x[0],  # (1, M, C) -> (M, C)
}


def model_rules(num_blocks: int) -> list[Rule]:
  """Returns the rule table for a whole INP-Former checkpoint.

  Args:
    num_blocks: Number of encoder blocks of the model; later blocks of the
      checkpoint are ignored.

  Returns:
    Rules that lead to the state of an `INPFormer`.
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
  """Returns the rule table for the trainable part alone."""
  return [
    Rule(r"prototype_token(?:\.0)?", "prototypes", add_batch_axis),
    *_linear(r"bottleneck\.0\.(fc[12])", r"bottleneck/\1"),
    *_block_rules(r"aggregation\.0\.()", r"extractor\1"),
    *_block_rules(r"decoder\.(\d+)\.", r"decoder/\1"),
  ]


def _block_rules(prefix: str, target: str) -> list[Rule]:
  """Returns the rules of a block; its target uses the prefix's one group."""
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
  """Architecture of an official checkpoint, as its shapes show it.

  Attributes:
    variant: Size of the encoder.
    name: The encoder's name; None if no known encoder has this size.
    num_registers: Number of register tokens of the encoder.
    num_prototypes: Number of INPs.
  """

  variant: vit.Variant
  name: str | None
  num_registers: int
  num_prototypes: int


def read_architecture(
  shapes: Mapping[str, tuple[int, ...]], source: object
) -> Architecture:
  """Reads the architecture of an official INP-Former checkpoint.

  Args:
    shapes: The shape of every array, by key.
    source: The checkpoint's file, named in error messages.

  Returns:
    The architecture.

  Raises:
    ValueError: If the arrays are no INP-Former checkpoint, or if the depth of
      its encoder is unknown.
  """
  prototypes = shapes.get("prototype_token", shapes.get("prototype_token.0"))
  scales = shapes.get("decoder.0.attn.learn_scale")
  token = shapes.get("encoder.cls_token")
  if prototypes is None or scales is None or token is None:
    raise ValueError(
      f"{source} is not an INP-Former checkpoint: expected prototype_token, "
      "encoder.cls_token and decoder.0.attn.learn_scale, but it holds "
      f"{shortened(list(shapes), 3) or 'no array'}."
    )
  depth = sum(
    key.startswith("encoder.blocks.") and key.endswith(".norm1.weight")
    for key in shapes
  )
  targets = {v.depth: v.target_blocks for v in vit.VARIANTS.values()}
  if depth not in targets:
    raise ValueError(
      f"{source} has an encoder of {depth} blocks; expected one of "
      f"{', '.join(map(str, targets))}."
    )
  variant = vit.Variant(token[-1], depth, int(np.prod(scales)), targets[depth])
  registers = shapes.get("encoder.register_tokens", (1, 0))[1]
  name = find_name(variant.width, depth, registers)
  if name and get_encoder(name).variant != variant:
    name = None
  return Architecture(variant, name, registers, prototypes[-2])


def array_shapes(
  arrays: Mapping[str, np.ndarray],
) -> dict[str, tuple[int, ...]]:
  """Returns the shape of every array, by key."""
  return {key: value.shape for key, value in arrays.items()}


def abstract_model(
  architecture: Architecture, dtype: jax.typing.DTypeLike = jnp.float32
):
  """Builds an abstract model, which takes no memory.

  Args:
    architecture: Architecture of the model.
    dtype: Compute dtype.

  Returns:
    The graph definition, the abstract trainable state and the abstract frozen
    state.
  """
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
  dtype: jax.typing.DTypeLike = jnp.float32,
) -> inp_former.INPFormer:
  """Builds an INPFormer with the weights of an official checkpoint.

  Args:
    arrays: The arrays of the checkpoint, by key.
    source: The checkpoint's file, named in error messages.
    dtype: Compute dtype.

  Returns:
    The model.

  Raises:
    ValueError: If the checkpoint does not fit the model; every mismatch is
      named.
  """
  architecture = read_architecture(array_shapes(arrays), source)
  graphdef, trainable, frozen = abstract_model(architecture, dtype)
  state = nnx.merge_state(trainable, frozen)
  table = model_rules(len(frozen["encoder"]["blocks"]))
  return nnx.merge(graphdef, convert_state(arrays, table, state, source))


def trainable_to_torch(trainable: nnx.State) -> dict[str, np.ndarray]:
  """Converts the trainable part to the original's names, shapes and order.

  Args:
    trainable: Trainable state of an INPFormer with INPs.

  Returns:
    The float32 arrays by key, without the encoder's.
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


def _way_back(name: str, table: list[Rule]) -> tuple[str, Transform]:
  """Returns a key's path in our state, and its rule's inverse transform."""
  ((rule, match),) = [
    (r, m) for r in table if (m := re.fullmatch(r.pattern, name))
  ]
  assert rule.target is not None  # every trainable array is needed
  return match.expand(rule.target), _INVERSES[rule.transform]


def trainable_names(depth: int) -> list[str]:
  """Returns the original's names of the trainable part, in its order.

  Args:
    depth: Number of decoder blocks.

  Returns:
    The keys of an official checkpoint, without the encoder's.
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
