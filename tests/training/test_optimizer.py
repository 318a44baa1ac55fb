"""Optimizer: the original's loop in numpy, and how optax's would differ."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from inp_former_jax.training import optimizer

B1, B2, EPS = 0.9, 0.999, 1e-10


def random_tensors(seed, scale=1.0) -> dict[str, jax.Array]:
  rng = np.random.default_rng(seed)
  shapes = {"kernel": (4, 6), "bias": (6,), "scale": (3,)}
  return {
    k: jnp.asarray(scale * rng.normal(size=s), jnp.float32)
    for k, s in shapes.items()
  }


class NumpyStableAdamW:
  """The original's loop over the tensors, in float64."""

  def __init__(self, params, lr, weight_decay=1e-4):
    self.params = {k: np.asarray(v, np.float64) for k, v in params.items()}
    self.lr, self.weight_decay, self.step = lr, weight_decay, 0
    self.moments = {k: np.zeros((3, *v.shape)) for k, v in params.items()}

  def update(self, grads):
    self.step += 1
    correction1, correction2 = 1 - B1**self.step, 1 - B2**self.step
    for key, grad in grads.items():
      g, p = np.asarray(grad, np.float64), self.params[key]
      p *= 1 - self.lr * self.weight_decay
      m, v, v_max = self.moments[key]
      m[:] = B1 * m + (1 - B1) * g
      v[:] = B2 * v + (1 - B2) * g**2
      v_max[:] = np.maximum(v_max, v)
      denominator = np.sqrt(v_max) / np.sqrt(correction2) + EPS
      rms = np.sqrt(np.mean((g / denominator) ** 2))
      step_size = self.lr / max(1.0, rms) / correction1
      p -= step_size * m / denominator


def gradient_sequence(steps):
  """Gradients whose scale falls and jumps, so that maximum and RMS bite."""
  scales = np.resize([1.0, 1e-3, 1e-3, 1e-4, 30.0, 1e-2, 1e-2], steps)
  return [random_tensors(100 + t, s) for t, s in enumerate(scales)]


def trajectory(transformation, params, grads_per_step):
  state, history = transformation.init(params), []
  for grads in grads_per_step:
    updates, state = transformation.update(grads, state, params)
    params = optax.apply_updates(params, updates)
    history.append(params)
  return history


@pytest.mark.parametrize(
  "total, warmup",
  [(300, 100), (101, 100), (50, 7), (50, 2), (50, 1), (50, 0), (2, 1), (1, 0)],
)
def test_schedule_equals_the_originals_array(total, warmup):
  peak, final = 1e-3, 1e-4
  i = np.arange(total - warmup)
  cosine = 1 + np.cos(np.pi * i / len(i))
  expected = np.concatenate(
    [np.linspace(0, peak, warmup), final + 0.5 * (peak - final) * cosine]
  )
  schedule = optimizer.warm_cosine(total, warmup, peak, final)
  rates = jax.vmap(schedule)(jnp.arange(total))
  np.testing.assert_allclose(rates, expected, rtol=1e-5, atol=1e-10)


def test_schedule_stays_within_its_bounds_and_ends_at_final():
  schedule = optimizer.warm_cosine(500, 100, peak=2e-3, final=5e-5)
  rates = np.asarray(jax.vmap(schedule)(jnp.arange(501)))
  assert rates[0] == 0 and rates.min() >= 0
  assert rates.max() == pytest.approx(2e-3)
  assert np.all(np.diff(rates[:100]) > 0)
  assert np.all(np.diff(rates[100:]) <= 0)
  assert rates[-1] == pytest.approx(5e-5)


@pytest.mark.parametrize("total, warmup", [(100, 100), (50, 100), (0, 0)])
def test_warmup_that_fills_the_run_is_refused(total, warmup):
  message = f"warm-up of {warmup} .* {total}.*`warmup_steps`"
  with pytest.raises(ValueError, match=message):
    optimizer.warm_cosine(total, warmup)


def test_negative_warmup_is_refused():
  with pytest.raises(ValueError, match="-1"):
    optimizer.warm_cosine(10, -1)


@pytest.mark.parametrize("scale", [0.0, 1e-8, 1e-4, 1.0, 1e4])
def test_clipping_equals_torchs_formula(scale):
  grads = random_tensors(0, scale)
  clip = optimizer.clip_by_global_norm(0.1)
  clipped, _ = clip.update(grads, clip.init(grads))
  flat = np.concatenate(
    [np.asarray(g, np.float64).ravel() for g in grads.values()]
  )
  factor = min(1.0, 0.1 / (np.sqrt((flat**2).sum()) + 1e-6))
  for key, grad in grads.items():
    np.testing.assert_allclose(clipped[key], factor * grad, rtol=1e-6)
  assert optax.global_norm(clipped) <= 0.1


def test_clipping_has_torchs_epsilon_which_optax_lacks():
  grads = {"x": jnp.asarray([2e-5])}
  ours, _ = optimizer.clip_by_global_norm(1e-5).update(grads, None)
  assert ours["x"][0] == pytest.approx(2e-5 * 1e-5 / (2e-5 + 1e-6))
  optaxs, _ = optax.clip_by_global_norm(1e-5).update(grads, None)
  assert optaxs["x"][0] == pytest.approx(1e-5)


def test_trajectory_equals_the_originals_loop():
  params = random_tensors(1)
  reference = NumpyStableAdamW(params, lr=1e-2, weight_decay=0.1)
  adamw = optimizer.stable_adamw(1e-2, B1, B2, EPS, weight_decay=0.1)
  grads_per_step = gradient_sequence(20)
  history = trajectory(adamw, params, grads_per_step)
  for grads, ours in zip(grads_per_step, history, strict=True):
    reference.update(grads)
    for key, expected in reference.params.items():
      np.testing.assert_allclose(ours[key], expected, rtol=1e-5, atol=1e-6)


def test_optaxs_amsgrad_is_something_else():
  """A tidy-up to optax's own parts would change what is trained."""
  params = random_tensors(1)
  reference = NumpyStableAdamW(params, lr=1e-2, weight_decay=0.0)
  grads_per_step = gradient_sequence(20)
  for grads in grads_per_step:
    reference.update(grads)
  amsgrad = optax.scale_by_amsgrad(B1, B2, EPS)
  rate = optax.scale_by_learning_rate(1e-2)
  for parts in (
    [amsgrad],
    [optax.clip_by_block_rms(1.0), amsgrad],
    [amsgrad, optax.clip_by_block_rms(1.0)],
    [optax.scale_by_adam(B1, B2, EPS)],
  ):
    last = trajectory(optax.chain(*parts, rate), params, grads_per_step)[-1]
    for key, expected in reference.params.items():
      assert np.abs(last[key] - expected).max() > 1e-3


def test_amsgrad_keeps_the_largest_uncorrected_second_moment():
  stable = optimizer.scale_by_stable_adam(B1, B2, EPS)
  params = {"x": jnp.ones(4)}
  state = stable.init(params)
  for scale in (1.0, 100.0, 1e-3):
    _, state = stable.update({"x": jnp.full(4, scale)}, state)
  largest = (1 - B2) * (B2 * 1.0 + 100.0**2)
  np.testing.assert_allclose(state.nu_max["x"], largest, rtol=1e-5)
  assert np.all(state.nu["x"] < state.nu_max["x"])
  assert state.count == 3


def test_first_step_moves_every_value_by_at_most_the_learning_rate():
  params = random_tensors(1)
  adamw = optimizer.stable_adamw(1e-2, weight_decay=0.0)
  for scale in (1e-6, 1.0, 1e6):
    (after,) = trajectory(adamw, params, [random_tensors(2, scale)])
    for key in params:
      step = np.abs(after[key] - params[key])
      assert step.max() == pytest.approx(1e-2, rel=1e-3)


def test_update_clipping_tames_a_gradient_that_jumps():
  stable = optimizer.scale_by_stable_adam(B1, B2, EPS)
  params = random_tensors(1)
  state = stable.init(params)
  for t in range(50):
    _, state = stable.update(random_tensors(t, 1e-3), state)
  jump = random_tensors(99, 1.0)
  updates, state = stable.update(jump, state)
  correction1, correction2 = 1 - B1**51, 1 - B2**51
  for key, update in updates.items():
    denominator = np.sqrt(state.nu_max[key]) / np.sqrt(correction2) + EPS
    unclipped = state.mu[key] / denominator / correction1
    rms = lambda x: np.sqrt(np.mean(np.square(x)))  # noqa: E731
    assert rms(unclipped) > 4 * rms(update)
    # RMS(g / denominator) is 1 after clipping; m is (1 - b1) g and a little.
    bound = (1 - B1) / correction1
    assert rms(update) == pytest.approx(bound, rel=0.05)


def test_update_clipping_works_tensor_by_tensor():
  stable = optimizer.scale_by_stable_adam(B1, B2, EPS)
  quiet, loud = jnp.full(3, 0.5), jnp.full(3, 1e3)
  state = stable.init({"a": quiet, "b": quiet})
  alone = stable.init({"a": quiet})
  for _ in range(10):
    _, state = stable.update({"a": quiet, "b": quiet}, state)
    _, alone = stable.update({"a": quiet}, alone)
  both, _ = stable.update({"a": quiet, "b": loud}, state)
  only, _ = stable.update({"a": quiet}, alone)
  np.testing.assert_array_equal(both["a"], only["a"])


def test_zero_gradients_leave_decay_alone():
  params = random_tensors(1)
  zeros = jax.tree.map(jnp.zeros_like, params)
  adamw = optimizer.make_optimizer(lambda step: 0.5, weight_decay=0.1)
  last = trajectory(adamw, params, [zeros] * 3)[-1]
  for key in params:
    np.testing.assert_allclose(last[key], 0.95**3 * params[key], rtol=1e-5)


def test_weight_decay_is_decoupled_and_takes_the_unclipped_learning_rate():
  params = random_tensors(1)
  grads_per_step = [random_tensors(t, 1e-3) for t in range(20)]
  grads_per_step.append(random_tensors(99, 1.0))  # clipped, see above
  states = []
  for decay in (0.0, 0.1):
    adamw = optimizer.stable_adamw(1e-2, weight_decay=decay)
    state = adamw.init(params)
    for grads in grads_per_step:
      updates, state = adamw.update(grads, state, params)
    states.append((updates, state))
  (plain, plain_state), (decayed, decayed_state) = states
  for key in params:
    np.testing.assert_allclose(
      decayed[key] - plain[key], -1e-2 * 0.1 * params[key], rtol=1e-3, atol=1e-8
    )
  # Decay enters no moment.
  jax.tree.map(np.testing.assert_array_equal, plain_state, decayed_state)


def test_make_optimizer_clips_the_norm_first_and_follows_the_schedule():
  params = random_tensors(1)
  schedule = optimizer.warm_cosine(20, 5, peak=1e-2, final=1e-3)
  ours = optimizer.make_optimizer(schedule, weight_decay=0.1, max_norm=0.1)
  grads_per_step = gradient_sequence(20)
  reference = NumpyStableAdamW(params, lr=None, weight_decay=0.1)
  history = trajectory(ours, params, grads_per_step)
  np.testing.assert_array_equal(history[0]["kernel"], params["kernel"])
  for t, grads in enumerate(grads_per_step):
    norm = np.sqrt(sum(float(jnp.sum(g**2)) for g in grads.values()))
    factor = min(1.0, 0.1 / (norm + 1e-6))
    reference.lr = float(schedule(t))
    reference.update({k: factor * np.asarray(g) for k, g in grads.items()})
    for key, expected in reference.params.items():
      np.testing.assert_allclose(
        history[t][key], expected, rtol=1e-5, atol=1e-6
      )


def test_step_compiles_once_and_takes_donated_state():
  params = random_tensors(1)
  adamw = optimizer.make_optimizer(optimizer.warm_cosine(10, 3))
  traces = []

  def step(params, state, grads):
    traces.append(None)
    updates, state = adamw.update(grads, state, params)
    return optax.apply_updates(params, updates), state

  # Donation fails where two moments share a buffer.
  jitted = jax.jit(step, donate_argnums=1)
  eager, eager_state = params, adamw.init(params)
  state = adamw.init(params)
  for t in range(4):
    grads = random_tensors(t)
    params, state = jitted(params, state, grads)
    eager, eager_state = step(eager, eager_state, grads)
  assert len(traces) == 4 + 1
  assert jax.tree.structure(state) == jax.tree.structure(eager_state)
  for key in params:
    np.testing.assert_allclose(params[key], eager[key], rtol=1e-5, atol=1e-7)


def test_state_mirrors_the_parameters():
  params = random_tensors(1)
  state = optimizer.scale_by_stable_adam().init(params)
  assert state.count.dtype == jnp.int32 and state.count.shape == ()
  for moments in (state.mu, state.nu, state.nu_max):
    assert jax.tree.structure(moments) == jax.tree.structure(params)
    for key in params:
      assert moments[key].dtype == params[key].dtype
      np.testing.assert_array_equal(moments[key], np.zeros(params[key].shape))
