"""The precision of what suffers from rounding, whatever the compute dtype."""

import jax
import jax.numpy as jnp


def at_least_float32(x: jax.Array) -> jax.Array:
  """Casts to float32, the least that losses and scores are computed in.

  float64 is kept, because the verification computes in it.

  Args:
    x: An array of any shape.

  Returns:
    The array.
  """
  return x.astype(jnp.promote_types(x.dtype, jnp.float32))
