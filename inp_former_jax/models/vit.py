"""DINOv2 vision transformer, the frozen encoder of INP-Former.

Oquab et al., "DINOv2: Learning robust visual features without supervision",
2023; registers: Darcet et al., "Vision transformers need registers", 2024.
"""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from inp_former_jax.models.attention import AUTO
from inp_former_jax.models.layers import (
  LayerNorm,
  Mlp,
  SelfAttention,
  linear_layer,
)

LAYER_NORM_EPS = 1e-6

AnyArray = jax.Array | np.ndarray  # on a device or on the host


@dataclasses.dataclass(frozen=True)
class Variant:
  """Size of a vision transformer.

  Attributes:
    width: Number of channels C of a token.
    depth: Number of blocks of the published encoder. (A distilled student
      ends with its last target block.)
    num_heads: Number of attention heads.
    target_blocks: Indices of the blocks whose outputs INP-Former reads,
      0-based and ascending.
    patch_size: Side of a patch in pixels.
    position_grid: Side of the trained position table, in patches.
  """

  width: int
  depth: int
  num_heads: int
  target_blocks: tuple[int, ...] = (2, 3, 4, 5, 6, 7, 8, 9)
  patch_size: int = 14
  position_grid: int = 37  # 518 pixels / 14


VARIANTS = {
  # For tests: the size of the reference arrays, and a size quick to compile.
  "nano": Variant(width=48, depth=12, num_heads=3),
  "femto": Variant(width=24, depth=4, num_heads=3, target_blocks=(0, 1, 2, 3)),
  "tiny": Variant(width=192, depth=10, num_heads=6),  # distilled students
  "small": Variant(width=384, depth=12, num_heads=6),
  "base": Variant(width=768, depth=12, num_heads=12),
  "large": Variant(
    width=1024,
    depth=24,
    num_heads=16,
    target_blocks=(4, 6, 8, 10, 12, 14, 16, 18),
  ),
}


@functools.cache
def _bicubic_matrix(size: int, trained: int) -> np.ndarray:
  """Returns the matrix (size, trained) by which DINOv2 resizes positions.

  It is PyTorch's bicubic interpolation, not jax.image.resize's: a = -0.75, no
  antialias, and borders clamped. The source coordinate, float32 as in PyTorch,
  follows from the scale (size + 0.1) / trained, which DINOv2 passes to avoid a
  rounding error.
  """
  a = -0.75
  step = np.float32(trained / (size + 0.1))
  source = step * (np.arange(size, dtype=np.float32) + 0.5) - 0.5
  floor = np.floor(source)
  matrix = np.zeros((size, trained))
  for tap in range(-1, 3):
    x = np.abs(source - (floor + tap))
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
    column = np.clip(floor + tap, 0, trained - 1).astype(int)
    np.add.at(matrix, (np.arange(size), column), np.where(x <= 1, near, far))
  return matrix.astype(np.float32)


def resize_position_table(
  table: jax.Array, height: int, width: int
) -> jax.Array:
  """Resizes the patch part of the position table to another grid.

  Args:
    table: Positions for the trained grid of GxG patches, (1, G * G, C) float32.
    height: Number of rows of the new grid.
    width: Number of columns of the new grid.

  Returns:
    Positions for the new grid, (1, height * width, C) float32; the table
    itself if the new grid is GxG too.
  """
  trained = math.isqrt(table.shape[1])
  if height == width == trained:
    return table
  grid = table.reshape(trained, trained, -1)
  resized = jnp.einsum(
    "hi,wj,ijc->hwc",
    _bicubic_matrix(height, trained),
    _bicubic_matrix(width, trained),
    grid,
    precision=jax.lax.Precision.HIGHEST,
  )
  return resized.reshape(1, height * width, -1)


class EncoderBlock(nnx.Module):
  """Transformer block with LayerScale g1 and g2.

  x = x + g1 * attn(LN(x)), then x = x + g2 * mlp(LN(x)).
  """

  def __init__(
    self, variant: Variant, *, attention: str, dtype, rngs: nnx.Rngs
  ):
    width = variant.width
    norm = functools.partial(
      LayerNorm, width, epsilon=LAYER_NORM_EPS, dtype=dtype, rngs=rngs
    )
    self.norm1 = norm()
    self.attn = SelfAttention(
      width, variant.num_heads, attention=attention, dtype=dtype, rngs=rngs
    )
    self.ls1 = nnx.Param(jnp.ones(width))
    self.norm2 = norm()
    self.mlp = Mlp(width, dtype=dtype, rngs=rngs)
    self.ls2 = nnx.Param(jnp.ones(width))

  def __call__(self, x: jax.Array) -> jax.Array:
    """Applies the block to tokens x (B, T, C); gives (B, T, C)."""
    x = x + self.ls1[...].astype(x.dtype) * self.attn(self.norm1(x))
    return x + self.ls2[...].astype(x.dtype) * self.mlp(self.norm2(x))


class VisionTransformer(nnx.Module):
  """DINOv2 ViT without its final norm, cut after the last block needed.

  Attributes:
    variant: Size of the encoder, with its target blocks.
    num_registers: Number of register tokens R, 0 or 4.
    dtype: Compute dtype; parameters are float32.
    blocks: The blocks that are run.
  """

  def __init__(
    self,
    variant: Variant,
    num_registers: int = 0,
    *,
    num_blocks: int | None = None,
    attention: str = AUTO,
    dtype: jax.typing.DTypeLike = jnp.float32,
    rngs: nnx.Rngs,
  ):
    """Builds a randomly initialised encoder.

    Args:
      variant: Size of the encoder, a row of VARIANTS.
      num_registers: Number of register tokens.
      num_blocks: Number of blocks to build; by default up to the last target
        block, because later blocks have no influence.
      attention: How its attention is computed, see `softmax_attention`.
      dtype: Compute dtype.
      rngs: Source of the initial values.
    """
    if num_blocks is None:
      num_blocks = variant.target_blocks[-1] + 1
    width = variant.width
    normal = nnx.initializers.truncated_normal(0.02)
    self.variant, self.num_registers = variant, num_registers
    self.dtype = dtype
    self.patch_embed = linear_layer(
      variant.patch_size**2 * 3, width, dtype=dtype, rngs=rngs
    )
    self.cls_token = nnx.Param(normal(rngs.params(), (1, 1, width)))
    self.pos_embed = nnx.Param(
      normal(rngs.params(), (1, 1 + variant.position_grid**2, width))
    )
    self.register_tokens = (
      nnx.Param(normal(rngs.params(), (1, num_registers, width)))
      if num_registers
      else None
    )
    self.blocks = nnx.List(
      EncoderBlock(variant, attention=attention, dtype=dtype, rngs=rngs)
      for _ in range(num_blocks)
    )

  def embed(self, images: AnyArray) -> jax.Array:
    """Turns images into tokens.

    Args:
      images: Normalised images, (B, H, W, 3); the patch size divides H and W.

    Returns:
      The tokens, (B, 1 + R + N, C): class token, registers, then patches row
      by row. The registers carry no position.

    Raises:
      ValueError: If H or W is not a multiple of the patch size.
    """
    batch, height, width, _ = images.shape
    size = self.variant.patch_size
    if height % size or width % size:
      raise ValueError(
        f"Images of {height}x{width} pixels cannot be cut into patches: "
        f"height and width must be multiples of {size}."
      )
    rows, columns = height // size, width // size
    # A convolution whose stride is its size is a matrix product over patches.
    patches = jnp.asarray(images).reshape(batch, rows, size, columns, size, 3)
    patches = patches.transpose(0, 1, 3, 2, 4, 5)
    x = self.patch_embed(patches.reshape(batch, rows * columns, -1))

    position = self.pos_embed[...]
    patch_position = resize_position_table(position[:, 1:], rows, columns)
    x = x + patch_position.astype(self.dtype)
    prefix = [self.cls_token[...] + position[:, :1]]
    if self.register_tokens is not None:
      prefix.append(self.register_tokens[...])
    prefix = jnp.concatenate(prefix, axis=1).astype(self.dtype)
    prefix = jnp.broadcast_to(prefix, (batch, *prefix.shape[1:]))
    return jnp.concatenate([prefix, x], axis=1)

  def __call__(self, images: AnyArray) -> list[jax.Array]:
    """Runs the encoder.

    Args:
      images: Normalised images, (B, H, W, 3); the patch size divides H and W.

    Returns:
      The output of every block, each (B, 1 + R + N, C) in `dtype`.
    """
    x = self.embed(images)
    outputs = []
    for block in self.blocks:
      x = block(x)
      outputs.append(x)
    return outputs

  def target_features(self, images: AnyArray) -> list[jax.Array]:
    """Computes e0..e7, the patch tokens of the target blocks.

    Args:
      images: Normalised images, (B, H, W, 3); the patch size divides H and W.

    Returns:
      The output of every target block, each (B, N, C), without class and
      register tokens.
    """
    outputs = self(images)
    first_patch = 1 + self.num_registers
    return [outputs[i][:, first_patch:] for i in self.variant.target_blocks]
