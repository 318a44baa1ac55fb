"""StableAdamW with AMSGrad, and the warm-up cosine schedule of INP-Former.

Two parts of optax differ from the original and cannot be used: amsgrad corrects
the bias before it takes the maximum, and clip_by_block_rms clips by the RMS of
the whole update instead of that of the gradient over its denominator.
"""

from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
import optax

# The paper's settings.
B1, B2, EPS = 0.9, 0.999, 1e-10
WEIGHT_DECAY = 1e-4
MAX_NORM = 0.1
WARMUP_STEPS = 100
PEAK_LEARNING_RATE = 1e-3
FINAL_LEARNING_RATE = 1e-4


class StableAdamState(NamedTuple):
  """State of `scale_by_stable_adam`.

  Attributes:
    count: Number of steps taken, an int32 scalar.
    mu: First moments m, a pytree like the parameters.
    nu: Second moments v, a pytree like the parameters.
    nu_max: Largest v so far (AMSGrad), a pytree like the parameters.
  """

  count: jax.Array
  mu: optax.Updates
  nu: optax.Updates
  nu_max: optax.Updates


def scale_by_stable_adam(
  b1: float = B1, b2: float = B2, eps: float = EPS
) -> optax.GradientTransformation:
  """Scales gradients by AMSGrad, with the update clipping of StableAdamW.

  For a gradient g at step t = 1, 2, ...:
    m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g^2;  v_max = max(v_max, v)
    denominator = sqrt(v_max) / sqrt(1 - b2^t) + eps
    update = m / denominator / (1 - b1^t) / max(1, RMS(g / denominator))
  where the RMS is that of a tensor, and v_max is taken of the uncorrected v.

  Wortsman et al., "Stable and low-precision training for large-scale
  vision-language models", 2023 (Alg. 2); Reddi et al., "On the convergence of
  Adam and beyond", 2018.

  Args:
    b1: Decay of the first moment.
    b2: Decay of the second moment.
    eps: Constant added to the denominator.

  Returns:
    A gradient transformation, to be followed by the learning rate and its
    sign.
  """

  def init(params):
    # Three copies: donated buffers must not be shared.
    mu, nu, nu_max = (jax.tree.map(jnp.zeros_like, params) for _ in range(3))
    return StableAdamState(jnp.zeros([], jnp.int32), mu, nu, nu_max)

  def update(updates, state, params=None):
    del params
    grads = updates  # optax prescribes the parameter's name
    # The count is an array, although the type of the result also allows plain
    # numbers.
    count = cast(jax.Array, optax.safe_increment(state.count))
    mu = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, state.mu, grads)
    nu = jax.tree.map(lambda v, g: b2 * v + (1 - b2) * g * g, state.nu, grads)
    nu_max = jax.tree.map(jnp.maximum, state.nu_max, nu)
    correction1 = 1 - b1 ** count.astype(jnp.float32)
    correction2 = 1 - b2 ** count.astype(jnp.float32)

    def direction(g, m, v_max):
      denominator = jnp.sqrt(v_max) / jnp.sqrt(correction2) + eps
      rms = jnp.sqrt(jnp.mean(jnp.square(g / denominator)))
      return m / denominator / (correction1 * jnp.maximum(1.0, rms))

    updates = jax.tree.map(direction, grads, mu, nu_max)
    return updates, StableAdamState(count, mu, nu, nu_max)

  return optax.GradientTransformation(init, update)


def clip_by_global_norm(max_norm: float) -> optax.GradientTransformation:
  """Scales gradients by min(1, max_norm / (norm + 1e-6)), as PyTorch does.

  optax's function of that name leaves out the 1e-6.

  Args:
    max_norm: Largest global norm of the gradient, > 0.

  Returns:
    A stateless gradient transformation.
  """

  def update(grads, params):
    del params
    scale = jnp.minimum(1.0, max_norm / (optax.global_norm(grads) + 1e-6))
    return jax.tree.map(lambda g: g * scale, grads)

  return optax.stateless(update)


def stable_adamw(
  learning_rate: optax.ScalarOrSchedule,
  b1: float = B1,
  b2: float = B2,
  eps: float = EPS,
  weight_decay: float = WEIGHT_DECAY,
) -> optax.GradientTransformation:
  """Builds StableAdamW from `scale_by_stable_adam` and decoupled weight decay.

  Args:
    learning_rate: The learning rate, or a schedule of the step counted from 0.
    b1: Decay of the first moment.
    b2: Decay of the second moment.
    eps: Constant added to the denominator.
    weight_decay: Decoupled weight decay, which is multiplied by the unclipped
      learning rate.

  Returns:
    A gradient transformation, whose update needs the parameters.
  """
  return optax.chain(
    scale_by_stable_adam(b1, b2, eps),
    optax.add_decayed_weights(weight_decay),
    optax.scale_by_learning_rate(learning_rate),
  )


def warm_cosine(
  total_steps: int,
  warmup_steps: int = WARMUP_STEPS,
  peak: float = PEAK_LEARNING_RATE,
  final: float = FINAL_LEARNING_RATE,
) -> optax.Schedule:
  """Builds a schedule of linear warm-up from 0 and half a cosine down to final.

  lr_t = linspace(0, peak, warmup)[t], then
  final + (peak - final) / 2 * (1 + cos(pi i / (total - warmup))), where i
  counts the steps after the warm-up.

  Args:
    total_steps: Number of steps of the whole run.
    warmup_steps: Number of steps of the warm-up, < total_steps.
    peak: Learning rate after the warm-up.
    final: Learning rate at the end.

  Returns:
    The learning rate as a function of the step, counted from 0. It stays at
    `final` after the end.

  Raises:
    ValueError: If the warm-up is not shorter than the run.
  """
  if not 0 <= warmup_steps < total_steps:
    raise ValueError(
      f"A warm-up of {warmup_steps} steps does not fit a run of {total_steps}: "
      "expected at least 0 steps and fewer than the run has. Change "
      "`warmup_steps`, or train longer."
    )

  def schedule(step):
    # The last point of linspace is the peak, hence warmup - 1.
    warmup = peak * step / max(warmup_steps - 1, 1)
    progress = (step - warmup_steps) / (total_steps - warmup_steps)
    progress = jnp.minimum(progress, 1.0)
    cosine = final + 0.5 * (peak - final) * (1 + jnp.cos(jnp.pi * progress))
    return jnp.where(step < warmup_steps, warmup, cosine)

  return schedule


def make_optimizer(
  schedule: optax.Schedule,
  *,
  b1: float = B1,
  b2: float = B2,
  eps: float = EPS,
  weight_decay: float = WEIGHT_DECAY,
  max_norm: float = MAX_NORM,
) -> optax.GradientTransformation:
  """Builds the optimizer of INP-Former: clipping, then StableAdamW.

  Args:
    schedule: Schedule of the learning rate, as `warm_cosine` returns it.
    b1: Decay of the first moment.
    b2: Decay of the second moment.
    eps: Constant added to the denominator.
    weight_decay: Decoupled weight decay.
    max_norm: Global norm to which gradients are clipped.

  Returns:
    A gradient transformation, whose update needs the parameters.
  """
  return optax.chain(
    clip_by_global_norm(max_norm),
    stable_adamw(schedule, b1, b2, eps, weight_decay),
  )
