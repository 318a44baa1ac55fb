"""Softmax attention, computed in the way that suits the kind of device.

One function with one meaning, softmax(q k^T / sqrt(d)) v. The forms differ in
what they keep in memory: the weights of all heads of a batch (XLA), of one head
of one image (CPU), or of no more than a block of queries (cuDNN and Pallas).

Letters in shapes: B batch, N tokens, C width, h heads, d = C / h.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from inp_former_jax.models import placement, tpu_attention
from inp_former_jax.models.precision import at_least_float32

AUTO, XLA, BY_HEAD, CUDNN, PALLAS = "auto", "xla", "by_head", "cudnn", "pallas"
IMPLEMENTATIONS = (AUTO, XLA, BY_HEAD, CUDNN, PALLAS)


def softmax_attention(
  qkv: jax.Array, num_heads: int, implementation: str = AUTO
) -> jax.Array:
  """Computes softmax(q k^T / sqrt(d)) v for every head.

  Args:
    qkv: Queries, keys and values of all heads one after the other, (B, N, 3 C).
    num_heads: Number of heads h.
    implementation: One of IMPLEMENTATIONS. AUTO chooses by the platform that
      the computation is lowered for: BY_HEAD on CPUs, CUDNN on NVIDIA GPUs from
      Ampere on in 16-bit dtypes, PALLAS on TPUs where it takes the shape, and
      XLA elsewhere.

  Returns:
    The weighted values of all heads, (B, N, C).

  Raises:
    ValueError: If the implementation is unknown, or does not take the shape.
  """
  check_implementation(implementation)
  if implementation != AUTO:
    return _FORMS[implementation](qkv, num_heads)

  def form(function):
    return lambda qkv: function(qkv, num_heads)

  forms = {"cpu": form(_by_head)}
  platform = placement.platform()
  _, tokens, channels = qkv.shape
  takes_pallas = tpu_attention.takes(tokens, channels // 3, num_heads)
  if platform == "tpu" and takes_pallas:
    forms["tpu"] = form(_pallas)
  if platform == "gpu" and _cudnn_takes(qkv, num_heads):
    forms["cuda"] = form(_cudnn)
  return jax.lax.platform_dependent(qkv, default=form(_xla), **forms)


def check_implementation(implementation: str) -> None:
  """Raises a ValueError if there is no such implementation of attention."""
  if implementation not in IMPLEMENTATIONS:
    raise ValueError(
      f"`attention` is {implementation!r}; expected one of "
      f"{', '.join(IMPLEMENTATIONS)}."
    )


def _xla(qkv: jax.Array, num_heads: int) -> jax.Array:
  """The weights of all heads of the batch, (B, h, N, N), are in memory."""
  return _library(qkv, num_heads, "xla")


def _cudnn(qkv: jax.Array, num_heads: int) -> jax.Array:
  return _library(qkv, num_heads, "cudnn")


def _library(qkv: jax.Array, num_heads: int, implementation) -> jax.Array:
  batch, tokens, _ = qkv.shape
  qkv = qkv.reshape(batch, tokens, 3, num_heads, -1)
  q, k, v = qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2]
  out = jax.nn.dot_product_attention(q, k, v, implementation=implementation)
  return out.reshape(batch, tokens, -1)


def _cudnn_takes(qkv: jax.Array, num_heads: int) -> bool:
  """Returns whether cuDNN's fused attention takes this array."""
  device = jax.local_devices()[0]
  if device.platform != "gpu" or "cuda" not in device.client.platform_version:
    return False
  size = qkv.shape[-1] // (3 * num_heads)
  return (
    qkv.dtype in (jnp.bfloat16, jnp.float16)
    and size % 8 == 0
    and size <= 128
    and float(device.compute_capability) >= 8.0
  )


def _by_head(qkv: jax.Array, num_heads: int) -> jax.Array:
  """Computes one head of one image after another.

  Its weights, (N, N), stay in the cache of a CPU.
  """

  def one_head(qkv: jax.Array) -> jax.Array:
    q, k, v = qkv
    logits = jnp.dot(q * q.shape[-1] ** -0.5, k.T)
    weights = jax.nn.softmax(at_least_float32(logits))
    return jnp.dot(weights.astype(v.dtype), v)

  def all_heads(qkv: jax.Array) -> jax.Array:
    batch, tokens, channels = qkv.shape
    size = channels // (3 * num_heads)
    heads = qkv.reshape(batch, tokens, 3, num_heads, size)
    heads = heads.transpose(0, 3, 2, 1, 4)
    out = jax.lax.map(
      one_head, heads.reshape(batch * num_heads, 3, tokens, size)
    )
    out = out.reshape(batch, num_heads, tokens, size)
    return out.transpose(0, 2, 1, 3).reshape(batch, tokens, -1)

  return placement.per_device(all_heads, qkv)


def _pallas(qkv: jax.Array, num_heads: int) -> jax.Array:
  """A kernel computes a block of queries after another, in fast memory."""
  return placement.per_device(lambda qkv: _kernel(qkv, num_heads), qkv)


def _kernel(qkv: jax.Array, num_heads: int) -> jax.Array:
  """The kernel, with the gradient of the plain form."""

  @jax.custom_vjp
  def kernel(qkv):
    return tpu_attention.attention(qkv, num_heads)

  def backward(qkv, cotangent):
    return jax.vjp(lambda qkv: _xla(qkv, num_heads), qkv)[1](cotangent)

  kernel.defvjp(lambda qkv: (kernel(qkv), qkv), backward)
  return kernel(qkv)


_FORMS: dict[str, Callable[[jax.Array, int], jax.Array]] = {
  XLA: _xla,
  BY_HEAD: _by_head,
  CUDNN: _cudnn,
  PALLAS: _pallas,
}
