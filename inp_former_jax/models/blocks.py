"""The trainable blocks of INP-Former and their two cross-attentions.

Luo et al., "Exploring intrinsic normal prototypes within a single image for
universal anomaly detection", CVPR 2025, arXiv 2503.02424. Where the paper's
text and its code differ, this follows the code.

Letters in shapes: B batch, N patches, C width, M INPs, h heads.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from inp_former_jax.models import layers
from inp_former_jax.models.precision import at_least_float32

LAYER_NORM_EPS = 1e-8  # of the trainable part; the encoder's is 1e-6
trunc_normal = nnx.initializers.truncated_normal(0.01, lower=-3.0, upper=3.0)


def recomputed(module: nnx.Module) -> Callable[..., Any]:
  """Returns a module of which only the inputs are kept for its gradient.

  What lies between is computed again on the way back, which trades a forward
  pass for memory.

  Args:
    module: The module.

  Returns:
    A function with the arguments and results of the module.
  """
  graphdef, state = nnx.split(module)

  def call(state: nnx.State, *inputs: jax.Array) -> Any:
    return nnx.merge(graphdef, state)(*inputs)

  return functools.partial(jax.checkpoint(call), state)


class CrossAttention(nnx.Module):
  """Base of the two cross-attentions, with the projections that they share."""

  def __init__(self, width: int, num_heads: int, *, dtype, rngs: nnx.Rngs):
    linear = functools.partial(
      layers.linear_layer, dtype=dtype, rngs=rngs, kernel_init=trunc_normal
    )
    self.num_heads = num_heads
    self.q = linear(width, width)
    self.kv = linear(width, 2 * width)
    self.proj = linear(width, width)

  def project(
    self, x: jax.Array, context: jax.Array
  ) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Projects x (B, Q, C) to queries, context (B, K, C) to keys and values.

    They are (B, Q, h, C / h), (B, K, h, C / h) and (B, K, h, C / h).
    """
    heads = self.num_heads
    q = self.q(x).reshape(*x.shape[:2], heads, -1)
    kv = self.kv(context).reshape(*context.shape[:2], 2, heads, -1)
    return q, kv[:, :, 0], kv[:, :, 1]

  def merge(self, weights: jax.Array, v: jax.Array) -> jax.Array:
    """Sums v (B, K, h, C/h) by weights (B, h, Q, K); projects to (B, Q, C)."""
    out = jnp.einsum("bhqk,bkhd->bqhd", weights, v)
    return self.proj(out.reshape(*out.shape[:2], -1))


class ExtractorAttention(CrossAttention):
  """Softmax cross-attention scaled by head_dim^-0.5."""

  def __call__(
    self, x: jax.Array, context: jax.Array
  ) -> tuple[jax.Array, jax.Array]:
    """Attends from prototypes x (B, M, C) to patches (B, N, C).

    Returns the output, (B, M, C), and the attention weights, (B, h, M, N).
    """
    q, k, v = self.project(x, context)
    logits = jnp.einsum("bqhd,bkhd->bhqk", q * q.shape[-1] ** -0.5, k)
    attention = jax.nn.softmax(at_least_float32(logits)).astype(v.dtype)
    return self.merge(attention, v), attention


class GuidedAttention(CrossAttention):
  """INP-guided attention: ReLU(s_h * cos(q, k)), no softmax (Eq. 6)."""

  def __init__(self, width: int, num_heads: int, *, dtype, rngs: nnx.Rngs):
    super().__init__(width, num_heads, dtype=dtype, rngs=rngs)
    self.learn_scale = nnx.Param(jnp.ones(num_heads))  # s_h

  def __call__(self, x: jax.Array, inps: jax.Array) -> jax.Array:
    """Attends from patches x (B, N, C) to INPs (B, M, C); gives (B, N, C)."""
    q, k, v = self.project(x, inps)
    q, k = _l2_normalise(q), _l2_normalise(k)
    similarity = jnp.einsum("bqhd,bkhd->bhqk", q, k)
    scale = self.learn_scale[...].astype(similarity.dtype)[:, None, None]
    return self.merge(jax.nn.relu(scale * similarity), v)


def _l2_normalise(x: jax.Array) -> jax.Array:
  """Divides by max(|x|, 1e-12) over the last axis; the norm is float32."""
  square = jnp.sum(jnp.square(at_least_float32(x)), axis=-1, keepdims=True)
  return (x * jax.lax.rsqrt(jnp.maximum(square, 1e-24))).astype(x.dtype)


class _Block(nnx.Module):
  """Base of all trainable blocks, with their two norms and their MLP."""

  def __init__(self, width: int, *, dtype, rngs: nnx.Rngs):
    norm = functools.partial(
      layers.LayerNorm, width, epsilon=LAYER_NORM_EPS, dtype=dtype, rngs=rngs
    )
    self.norm1 = norm()
    self.norm2 = norm()
    self.mlp = layers.Mlp(
      width, dtype=dtype, rngs=rngs, kernel_init=trunc_normal
    )


class ExtractorBlock(_Block):
  """T' = T + Attn(LN1(T), LN1(F)); P = T' + MLP(LN2(T')) (Eq. 1, 2)."""

  def __init__(self, width: int, num_heads: int, *, dtype, rngs: nnx.Rngs):
    super().__init__(width, dtype=dtype, rngs=rngs)
    self.attn = ExtractorAttention(width, num_heads, dtype=dtype, rngs=rngs)

  def __call__(
    self, prototypes: jax.Array, fused: jax.Array
  ) -> tuple[jax.Array, jax.Array]:
    """Turns tokens T (B, M, C) and fused tokens F (B, N, C) into INPs.

    Returns the INPs, (B, M, C), and the attention weights, (B, h, M, N).
    """
    # The original uses the same LN1 for both inputs.
    update, attention = self.attn(self.norm1(prototypes), self.norm1(fused))
    x = prototypes + update
    return x + self.mlp(self.norm2(x)), attention


class GuidedBlock(_Block):
  """y = Attn(LN1(x), LN1(P)); x = y + MLP(LN2(y)) (Eq. 6)."""

  def __init__(self, width: int, num_heads: int, *, dtype, rngs: nnx.Rngs):
    super().__init__(width, dtype=dtype, rngs=rngs)
    self.attn = GuidedAttention(width, num_heads, dtype=dtype, rngs=rngs)

  def __call__(self, x: jax.Array, inps: jax.Array) -> jax.Array:
    """Decodes patches x (B, N, C) from INPs (B, M, C); gives (B, N, C)."""
    # No residual around the attention: it would carry the anomaly through.
    y = self.attn(self.norm1(x), self.norm1(inps))
    return y + self.mlp(self.norm2(y))


class SelfAttentionBlock(_Block):
  """A plain transformer block, for the decoder of the model without INPs."""

  def __init__(
    self, width: int, num_heads: int, *, attention: str, dtype, rngs: nnx.Rngs
  ):
    super().__init__(width, dtype=dtype, rngs=rngs)
    self.attn = layers.SelfAttention(
      width,
      num_heads,
      attention=attention,
      dtype=dtype,
      rngs=rngs,
      kernel_init=trunc_normal,
    )

  def __call__(self, x: jax.Array) -> jax.Array:
    """Applies the block to patches (B, N, C); gives (B, N, C)."""
    x = x + self.attn(self.norm1(x))
    return x + self.mlp(self.norm2(x))
