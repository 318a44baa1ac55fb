"""Cosine similarity, which the losses, the INPs and the scores share."""

import jax
import jax.numpy as jnp


def cosine_similarity(a: jax.Array, b: jax.Array) -> jax.Array:
  """Cosine over the last axis, with PyTorch's guard against zero vectors.

  cos(a, b) = a.b / (max(|a|, 1e-8) max(|b|, 1e-8))

  Args:
    a: (..., C), any shape that broadcasts with b's.
    b: (..., C).

  Returns:
    (...) in [-1, 1].
  """
  return jnp.sum(_unit(a) * _unit(b), axis=-1)


def _unit(x: jax.Array) -> jax.Array:
  square = jnp.sum(jnp.square(x), axis=-1, keepdims=True)
  return x * jax.lax.rsqrt(jnp.maximum(square, 1e-16))
