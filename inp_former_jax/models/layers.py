"""The layers that the encoder and the trainable part share.

Letters in shapes: B batch, N tokens, C width.
"""

import functools
from typing import Any

import jax
from flax import nnx
from flax.nnx.nn import dtypes

from inp_former_jax.models import placement
from inp_former_jax.models.attention import AUTO, softmax_attention
from inp_former_jax.models.precision import at_least_float32


class LayerNorm(nnx.LayerNorm):
  """Layer norm with two-pass float32 statistics, as PyTorch computes it."""

  def __init__(self, width: int, *, epsilon: float, dtype, rngs: nnx.Rngs):
    super().__init__(
      width, epsilon=epsilon, dtype=dtype, use_fast_variance=False, rngs=rngs
    )


class Mlp(nnx.Module):
  """Two-layer perceptron, C -> ratio * C -> C, with the exact (erf) GELU."""

  def __init__(
    self, width: int, *, dtype, rngs: nnx.Rngs, kernel_init=None, ratio: int = 4
  ):
    linear = functools.partial(linear_layer, dtype=dtype, rngs=rngs)
    self.fc1 = linear(width, ratio * width, kernel_init=kernel_init)
    self.fc2 = linear(ratio * width, width, kernel_init=kernel_init)

  def __call__(self, x: jax.Array) -> jax.Array:
    """Applies both layers to x (..., C); gives (..., C)."""
    return self.fc2(self.hidden(x))

  def hidden(self, x: jax.Array) -> jax.Array:
    """Computes the hidden neurons of x (..., C): (..., ratio * C)."""
    return gelu(self.fc1(x))


def gelu(x: jax.Array) -> jax.Array:
  """Computes the exact GELU, x (1 + erf(x / sqrt(2))) / 2.

  jax.nn.gelu computes it by erfc, which is several times slower on CPUs.

  Args:
    x: Values of any shape.

  Returns:
    The values, of the same shape and dtype.
  """
  # A bfloat16 sum 1 + erf would be 0 below -2.7.
  wide = at_least_float32(x)
  return (0.5 * wide * (1.0 + jax.lax.erf(wide * 0.5**0.5))).astype(x.dtype)


def linear_layer(
  inputs: int, outputs: int, *, dtype, rngs: nnx.Rngs, kernel_init=None
) -> nnx.Linear:
  """Builds a linear layer with float32 parameters that computes in `dtype`.

  Args:
    inputs: Number of input channels.
    outputs: Number of output channels.
    dtype: Compute dtype.
    rngs: Source of the initial values.
    kernel_init: Initialiser of the kernel; by default a truncated normal
      distribution with a standard deviation of 0.02. The bias starts at 0.

  Returns:
    The layer.
  """
  kernel_init = kernel_init or nnx.initializers.truncated_normal(0.02)
  return nnx.Linear(
    inputs,
    outputs,
    dtype=dtype,
    kernel_init=kernel_init,
    promote_dtype=_promote,
    rngs=rngs,
  )


def _promote(args: Any, /, *, dtype: Any = None, inexact: bool = True) -> Any:
  """Casts inputs, kernel and bias of a layer, and makes its kernel whole."""
  inputs, kernel, bias = dtypes.promote_dtype(
    args, dtype=dtype, inexact=inexact
  )
  return inputs, placement.gathered(kernel), bias


class SelfAttention(nnx.Module):
  """Softmax attention over all tokens, scaled by head_dim^-0.5."""

  def __init__(
    self,
    width: int,
    num_heads: int,
    *,
    attention: str = AUTO,
    dtype,
    rngs,
    kernel_init=None,
  ):
    linear = functools.partial(
      linear_layer, dtype=dtype, rngs=rngs, kernel_init=kernel_init
    )
    self.num_heads, self.attention = num_heads, attention
    self.qkv = linear(width, 3 * width)
    self.proj = linear(width, width)

  def __call__(self, x: jax.Array) -> jax.Array:
    """Attends among tokens x (B, N, C); gives (B, N, C)."""
    return self.proj(self.mix(x))

  def mix(self, x: jax.Array) -> jax.Array:
    """Computes the heads' outputs before the projection: (B, N, C)."""
    return softmax_attention(self.qkv(x), self.num_heads, self.attention)
