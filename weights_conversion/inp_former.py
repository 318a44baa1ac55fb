"""Official INP-Former `model.pth` names -> INPFormer."""

import dataclasses
from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np
from flax import nnx

from inp_former_jax.models import inp_former, vit
from weights_conversion.dinov2 import encoder_rules
from weights_conversion.rules import (
  Rule,
  add_batch_axis,
  convert_state,
  flatten,
  transpose,
)


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


def read_variant(arrays: Mapping[str, np.ndarray]) -> tuple[vit.Variant, int]:
  """Reads the encoder's size and its number of registers off the shapes.

  Args:
    arrays: An official INP-Former checkpoint.

  Returns:
    The variant, and the number of register tokens.
  """
  width = arrays["encoder.cls_token"].shape[-1]
  num_heads = arrays["decoder.0.attn.learn_scale"].size
  depth = sum(
    key.startswith("encoder.blocks.") and key.endswith(".norm1.weight")
    for key in arrays
  )
  targets = {v.depth: v.target_blocks for v in vit.VARIANTS.values()}[depth]
  registers = arrays.get("encoder.register_tokens")
  num_registers = 0 if registers is None else registers.shape[1]
  return vit.Variant(width, depth, num_heads, targets), num_registers


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
    ConversionError: It does not fit; every mismatch is named.
  """
  variant, num_registers = read_variant(arrays)
  tokens = arrays.get("prototype_token", arrays.get("prototype_token.0"))
  graphdef, state = nnx.split(
    nnx.eval_shape(
      lambda: inp_former.INPFormer(
        variant,
        num_registers,
        num_prototypes=tokens.shape[-2],
        dtype=dtype,
        rngs=nnx.Rngs(0),
      )
    )
  )
  table = model_rules(len(state["encoder"]["blocks"]))
  return nnx.merge(graphdef, convert_state(arrays, table, state, source))
