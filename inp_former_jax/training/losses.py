"""Soft mining loss and coherence loss of INP-Former (arXiv 2503.02424)."""

import functools
import operator
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from inp_former_jax.models.similarity import cosine_similarity

GAMMA = 3.0  # exponent of the soft mining weight, as in the paper
COHERENCE_WEIGHT = 0.2  # lambda, as in the paper


def _flat_cosine_distance(g: jax.Array, h: jax.Array) -> jax.Array:
  """Computes the mean over the batch of 1 - cos(flatten(g), flatten(h))."""
  batch = g.shape[0]
  return jnp.mean(
    1.0 - cosine_similarity(g.reshape(batch, -1), h.reshape(batch, -1))
  )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _soft_mining_group(g: jax.Array, h: jax.Array, gamma: float) -> jax.Array:
  return _flat_cosine_distance(g, h)


def _soft_mining_forward(g, h, gamma):
  return _flat_cosine_distance(g, h), (g, h)


def _soft_mining_backward(gamma, residuals, cotangent):
  """Weighs the gradient at h by w = (D / mean(D))^gamma; g gets none."""
  g, h = residuals
  _, pullback = jax.vjp(lambda h: _flat_cosine_distance(g, h), h)
  (gradient,) = pullback(cotangent)
  # D has a value per position. Its mean spans the whole global batch, so that
  # the result does not depend on the number of devices.
  distance = jnp.maximum(1.0 - cosine_similarity(g, h), 0.0)
  mean = jnp.maximum(jnp.mean(distance), jnp.finfo(distance.dtype).tiny)
  weight = (distance / mean) ** gamma
  return jnp.zeros_like(g), gradient * weight[..., None]


_soft_mining_group.defvjp(_soft_mining_forward, _soft_mining_backward)


def soft_mining_loss(
  encoder_groups: Sequence[jax.Array],
  decoder_groups: Sequence[jax.Array],
  gamma: float = GAMMA,
) -> jax.Array:
  """Computes the soft mining loss (Eq. 7 to 9).

  value = mean over groups and batch of 1 - cos(flatten(g), flatten(h)). The
  gradient is deliberately not the value's: at every position of h it is
  multiplied by w = (D / mean(D))^gamma with D = 1 - cos(g, h), so that
  positions that are hard to reconstruct weigh more. Neither g nor w gets a
  gradient.

  Args:
    encoder_groups: The encoder groups g, each (B, N, C) float32.
    decoder_groups: The decoder groups h, of the same shapes.
    gamma: Exponent of the weight, >= 0; 0 gives the value's own gradient.

  Returns:
    The loss, a scalar in [0, 2].
  """
  losses = [
    _soft_mining_group(g, h, gamma)
    for g, h in zip(encoder_groups, decoder_groups, strict=True)
  ]
  return functools.reduce(operator.add, losses) / len(losses)


def coherence_loss(inp_distance: jax.Array) -> jax.Array:
  """Computes the coherence loss (Eq. 5), a mean over images and patches.

  Args:
    inp_distance: Distance of every patch to the nearest INP, (B, N), as
      `inp_former.inp_distance` returns it.

  Returns:
    The loss, a scalar in [0, 2].
  """
  return jnp.mean(inp_distance)


def total_loss(
  output, *, gamma: float = GAMMA, coherence_weight: float = COHERENCE_WEIGHT
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """Computes the total loss L = L_sm + lambda L_c (Eq. 10).

  Args:
    output: The model's output, an `INPFormerOutput`.
    gamma: Exponent of the soft mining weight.
    coherence_weight: The weight lambda of the coherence loss.

  Returns:
    The loss, and a dict of scalars: `loss`, `soft_mining_loss` and, for a
    model with INPs, `coherence_loss`.
  """
  mining = soft_mining_loss(output.encoder_groups, output.decoder_groups, gamma)
  if output.inp_distance is None:
    return mining, {"loss": mining, "soft_mining_loss": mining}
  coherence = coherence_loss(output.inp_distance)
  loss = mining + coherence_weight * coherence
  return loss, {
    "loss": loss,
    "soft_mining_loss": mining,
    "coherence_loss": coherence,
  }
