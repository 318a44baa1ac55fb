"""Cosine similarity, as the losses, the INPs and the scores use it."""

import jax
import jax.numpy as jnp


def cosine_similarity(a: jax.Array, b: jax.Array) -> jax.Array:
  """Computes the cosine similarity over the last axis.

  cos(a, b) = a.b / (max(|a|, 1e-8) max(|b|, 1e-8)), with PyTorch's guard
  against zero vectors.

  Args:
    a: Vectors (..., C), of any shape that broadcasts with that of b.
    b: Vectors (..., C).

  Returns:
    The similarities (...), in [-1, 1].
  """
  return jnp.sum(unit_vectors(a) * unit_vectors(b), axis=-1)


def unit_vectors(x: jax.Array) -> jax.Array:
  """Divides vectors by their norms.

  Args:
    x: Vectors (..., C).

  Returns:
    x / max(|x|, 1e-8), (..., C).
  """
  square = jnp.sum(jnp.square(x), axis=-1, keepdims=True)
  return x * jax.lax.rsqrt(jnp.maximum(square, 1e-16))
