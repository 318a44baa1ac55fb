"""Counts parameters and multiply-adds from shapes alone, without memory."""

import dataclasses
import math

from flax import nnx

from inp_former_jax.models import vit
from inp_former_jax.models.inp_former import NUM_PROTOTYPES, INPFormer


@dataclasses.dataclass(frozen=True)
class Complexity:
  """Parameters and operations of a model at one image size.

  Attributes:
    parameters: Number of all parameters, frozen and trainable.
    layer_parameters: Number of parameters of linear layers and layer norms,
      as the paper counts: without tokens, position table, LayerScale and head
      scales.
    multiply_adds: Number of multiply-adds of linear layers and patch
      embedding for one image, as the paper counts.
    attention_multiply_adds: Number of multiply-adds of queries with keys and
      of attention weights with values for one image, which the paper does not
      count.
  """

  parameters: int
  layer_parameters: int
  multiply_adds: int
  attention_multiply_adds: int


def count(
  variant: vit.Variant,
  num_registers: int,
  height: int,
  width: int,
  *,
  num_prototypes: int = NUM_PROTOTYPES,
) -> Complexity:
  """Counts the parameters and multiply-adds of a model with INPs.

  Args:
    variant: The encoder's size, a row of `vit.VARIANTS`.
    num_registers: The encoder's number of register tokens.
    height: Height of the input in pixels, a multiple of the patch size.
    width: Width of the input in pixels, a multiple of the patch size.
    num_prototypes: Number of INPs.

  Returns:
    The counts for one image.
  """
  model = nnx.eval_shape(
    lambda: INPFormer(
      variant,
      num_registers,
      num_prototypes=num_prototypes,
      rngs=nnx.Rngs(0),
    )
  )
  shapes = {
    "/".join(map(str, path)): variable.get_value().shape
    for path, variable in nnx.to_flat_state(nnx.state(model))
  }
  size = variant.patch_size
  patches = (height // size) * (width // size)
  tokens = patches + 1 + num_registers
  blocks, decoder = len(model.encoder.blocks), len(model.decoder)
  products = blocks * tokens**2 + (1 + decoder) * patches * num_prototypes
  return Complexity(
    parameters=sum(map(math.prod, shapes.values())),
    layer_parameters=sum(
      math.prod(shape)
      for path, shape in shapes.items()
      if path.rsplit("/", 1)[-1] in ("kernel", "bias", "scale")
    ),
    multiply_adds=sum(
      math.prod(shape) * _rows(path, tokens, patches, num_prototypes)
      for path, shape in shapes.items()
      if path.endswith("/kernel")
    ),
    attention_multiply_adds=2 * variant.width * products,
  )


def _rows(path: str, tokens: int, patches: int, inps: int) -> int:
  """Returns how many vectors of one image pass through a linear layer."""
  of_keys = path.endswith("attn/kv/kernel")
  if path.startswith("encoder/blocks"):
    return tokens
  if path.startswith("extractor"):
    return patches if of_keys else inps
  if path.startswith("decoder"):
    return inps if of_keys else patches
  return patches  # patch embedding and bottleneck
