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
    encoder_multiply_adds: Number of multiply-adds of both kinds in the frozen
      encoder for one image.
    backward_multiply_adds: Number of multiply-adds of both kinds that the
      gradient of the trainable part takes for one image; the frozen encoder
      has none.
  """

  parameters: int
  layer_parameters: int
  multiply_adds: int
  attention_multiply_adds: int
  encoder_multiply_adds: int
  backward_multiply_adds: int

  @property
  def predict_flops(self) -> int:
    """Floating-point operations of the forward pass of one image."""
    return 2 * (self.multiply_adds + self.attention_multiply_adds)

  @property
  def step_flops(self) -> int:
    """Those of a training step, for one image of its batch."""
    return self.predict_flops + 2 * self.backward_multiply_adds

  @property
  def cached_step_flops(self) -> int:
    """Those of a training step that is given what the encoder computes."""
    return self.step_flops - 2 * self.encoder_multiply_adds


def count(
  variant: vit.Variant,
  num_registers: int,
  height: int,
  width: int,
  *,
  num_prototypes: int = NUM_PROTOTYPES,
  use_inps: bool = True,
) -> Complexity:
  """Counts the parameters and multiply-adds of a model.

  Args:
    variant: The encoder's size, a row of `vit.VARIANTS`.
    num_registers: The encoder's number of register tokens.
    height: Height of the input in pixels, a multiple of the patch size.
    width: Width of the input in pixels, a multiple of the patch size.
    num_prototypes: Number of INPs.
    use_inps: Whether the model has INPs.

  Returns:
    The counts for one image.
  """
  model = nnx.eval_shape(
    lambda: INPFormer(
      variant,
      num_registers,
      num_prototypes=num_prototypes,
      use_inps=use_inps,
      rngs=nnx.Rngs(0),
    )
  )
  shapes = _shapes(model)
  size = variant.patch_size
  patches = (height // size) * (width // size)
  tokens = patches + 1 + num_registers
  layers = {
    path: math.prod(shape) * _rows(path, tokens, patches, num_prototypes)
    for path, shape in shapes.items()
    if path.endswith("/kernel")
  }
  of_encoder = sum(
    count for path, count in layers.items() if path.startswith("encoder/")
  )
  of_layers = sum(layers.values())
  in_encoder = 2 * variant.width * len(model.encoder.blocks) * tokens**2
  pairs = len(model.decoder) * patches * patches
  if use_inps:
    pairs = (1 + len(model.decoder)) * patches * num_prototypes
  in_the_rest = 2 * variant.width * pairs
  # A product has two factors, and the gradient of each is another such product;
  # only the first layer's input, the encoder's features, needs no gradient.
  trainable = of_layers - of_encoder + in_the_rest
  return Complexity(
    parameters=sum(map(math.prod, shapes.values())),
    layer_parameters=sum(
      math.prod(shape)
      for path, shape in shapes.items()
      if path.rsplit("/", 1)[-1] in ("kernel", "bias", "scale")
    ),
    multiply_adds=of_layers,
    attention_multiply_adds=in_encoder + in_the_rest,
    encoder_multiply_adds=of_encoder + in_encoder,
    backward_multiply_adds=2 * trainable - layers["bottleneck/fc1/kernel"],
  )


def _shapes(model: INPFormer) -> dict[str, tuple[int, ...]]:
  """Returns the shapes of all parameters by path."""
  return {
    "/".join(map(str, path)): variable.get_value().shape
    for path, variable in nnx.to_flat_state(nnx.state(model))
  }


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
