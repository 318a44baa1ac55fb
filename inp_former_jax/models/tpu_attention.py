"""Softmax attention as a TPU kernel (Pallas).

Compared with the matrix products that XLA makes of it, the weights never leave
the core's fast memory, and the heads are read where the qkv projection has put
them, without a transpose.

Letters in shapes: B batch, N tokens, C width, h heads, d = C / h.
"""

import functools

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

_LANES = 128  # channels that a vector register holds side by side
_QUERIES = 256  # queries of a block
# The weights of a block of queries must fit into fast memory. On a v5e the
# compiler takes 4,101 tokens (896 pixels) in float32 and 7,401 in bfloat16.
_MOST_TOKENS = 4096


def takes(tokens: int, width: int, num_heads: int) -> bool:
  """Returns whether the kernel takes these sizes.

  Args:
    tokens: Number of tokens N.
    width: Width C.
    num_heads: Number of heads h.
  """
  fills_registers = width % _LANES == 0 and _LANES % (width // num_heads) == 0
  return fills_registers and tokens <= _MOST_TOKENS


def attention(qkv: jax.Array, num_heads: int) -> jax.Array:
  """Computes softmax(q k^T / sqrt(d)) v for every head.

  Args:
    qkv: Queries, keys and values of all heads one after the other, (B, N, 3 C).
    num_heads: Number of heads h.

  Returns:
    The weighted values of all heads, (B, N, C).

  Raises:
    ValueError: If the heads do not fill registers of 128 channels, or there are
      more tokens than fit into fast memory.
  """
  batch, tokens, channels = qkv.shape
  width = channels // 3
  if not takes(tokens, width, num_heads):
    raise ValueError(
      f"The attention of {num_heads} heads of {width / num_heads:g} channels "
      f"among {tokens:,} tokens cannot be computed by the TPU kernel, which "
      "takes multiples of 128 channels, in heads of a divisor of 128, and at "
      f"most {_MOST_TOKENS:,} tokens. Set `attention` to 'xla'."
    )
  groups = width // _LANES
  queries = min(tokens, _QUERIES)

  def whole(part):
    return pl.BlockSpec(
      (None, tokens, _LANES), lambda b, g, i: (b, 0, part * groups + g)
    )

  some = pl.BlockSpec((None, queries, _LANES), lambda b, g, i: (b, i, g))
  return pl.pallas_call(
    functools.partial(_kernel, size=width // num_heads),
    grid=(batch, groups, pl.cdiv(tokens, queries)),
    in_specs=[some, whole(1), whole(2)],
    out_specs=some,
    out_shape=jax.ShapeDtypeStruct((batch, tokens, width), qkv.dtype),
    compiler_params=pltpu.CompilerParams(
      dimension_semantics=("parallel", "parallel", "arbitrary")
    ),
    cost_estimate=pl.CostEstimate(
      flops=4 * batch * tokens**2 * width,
      transcendentals=batch * num_heads * tokens**2,
      bytes_accessed=4 * batch * tokens * width * qkv.dtype.itemsize,
    ),
    name="softmax_attention",
  )(qkv, qkv, qkv)


def _kernel(q_ref, k_ref, v_ref, out_ref, *, size: int):
  """Attends from a block of queries to all tokens, in 128 / d heads.

  A head is cut out by setting the other heads' channels to 0, which costs
  nothing: a matrix product over fewer than 128 channels takes as long.
  """
  q, k, v = q_ref[...], k_ref[...], v_ref[...]
  channel = jax.lax.broadcasted_iota(jnp.int32, (1, _LANES), 1)
  total = jnp.zeros(out_ref.shape, jnp.float32)
  for head in range(_LANES // size):
    mine = channel // size == head
    logits = jax.lax.dot_general(
      jnp.where(mine, q, 0).astype(q.dtype),
      k,
      (((1,), (1,)), ((), ())),
      preferred_element_type=jnp.float32,
    )
    logits *= size**-0.5
    weights = jnp.exp(logits - jnp.max(logits, axis=-1, keepdims=True))
    sums = jnp.sum(weights, axis=-1, keepdims=True)
    values = jnp.where(mine, v, 0).astype(v.dtype)
    product = jnp.dot(
      weights.astype(v.dtype), values, preferred_element_type=jnp.float32
    )
    total += product / sums
  out_ref[...] = total.astype(out_ref.dtype)
