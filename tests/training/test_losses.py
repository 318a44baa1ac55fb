"""Losses: the mined gradient, its guards, and what must not have one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from inp_former_jax.models.inp_former import INPFormerOutput
from inp_former_jax.training import losses
from tests.conftest import assert_agrees_on_eight_devices

SHAPE = (3, 5, 7)  # batch, patches, channels


@pytest.fixture(autouse=True)
def highest_precision():
  with jax.default_matmul_precision("highest"):
    yield


def random_groups(seed=0, shape=SHAPE, count=2) -> list[jax.Array]:
  rng = np.random.default_rng(seed)
  # Images of unequal difficulty: a mean per image would weigh them otherwise.
  offset = np.linspace(0, 3, shape[0])[:, None, None]
  return [
    jnp.asarray(rng.normal(size=shape) + offset, jnp.float32)
    for _ in range(count)
  ]


def plain_loss(encoder_groups, decoder_groups):
  """The value as the paper writes it, with its own gradient."""
  values = []
  for g, h in zip(encoder_groups, decoder_groups, strict=True):
    g, h = (x.reshape(len(x), -1) for x in (g, h))
    norms = jnp.linalg.norm(g, axis=1) * jnp.linalg.norm(h, axis=1)
    values.append(jnp.mean(1 - jnp.sum(g * h, axis=1) / norms))
  return sum(values) / len(values)


def mined_gradient(g, h, gamma, num_groups):
  """Gradient at one group h in float64, and the weights (B, N)."""
  g, h = np.asarray(g, np.float64), np.asarray(h, np.float64)
  norm = [np.sqrt((x**2).sum(axis=(1, 2), keepdims=True)) for x in (g, h)]
  cosine = (g * h).sum(axis=(1, 2), keepdims=True) / (norm[0] * norm[1])
  value_gradient = cosine * h / norm[1] ** 2 - g / (norm[0] * norm[1])
  lengths = np.linalg.norm(g, axis=-1) * np.linalg.norm(h, axis=-1)
  distance = 1 - (g * h).sum(axis=-1) / lengths
  weight = (distance / distance.mean()) ** gamma
  return value_gradient / (len(g) * num_groups) * weight[..., None], weight


def test_gamma_zero_gives_the_values_own_gradient():
  g, h = random_groups(0), random_groups(1)
  value, gradient = jax.value_and_grad(losses.soft_mining_loss, 1)(g, h, 0.0)
  expected, own = jax.value_and_grad(plain_loss, 1)(g, h)
  np.testing.assert_allclose(value, expected, rtol=1e-6)
  for a, b in zip(gradient, own, strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("gamma", [1.0, 3.0])
def test_gradient_is_weighted_position_by_position(gamma):
  g, h = random_groups(0), random_groups(1)
  gradient = jax.grad(losses.soft_mining_loss, 1)(g, h, gamma)
  for i in range(2):
    expected, weight = mined_gradient(g[i], h[i], gamma, num_groups=2)
    assert weight.max() / weight.min() > 2  # the data exercise the weight
    # Both are float32 at best; w is a power of a ratio.
    np.testing.assert_allclose(gradient[i], expected, rtol=1e-4, atol=1e-8)


def test_gradient_is_deliberately_not_that_of_the_value():
  g, h = random_groups(0), random_groups(1)
  mined = jax.grad(losses.soft_mining_loss, 1)(g, h, 3.0)
  own = jax.grad(plain_loss, 1)(g, h)
  for a, b in zip(mined, own, strict=True):
    assert jnp.linalg.norm(a - b) > 0.5 * jnp.linalg.norm(b)


def test_value_does_not_depend_on_gamma():
  g, h = random_groups(0), random_groups(1)
  values = [losses.soft_mining_loss(g, h, gamma) for gamma in (0.0, 1.0, 3.0)]
  np.testing.assert_array_equal(values, [values[0]] * 3)


def test_mean_distance_spans_the_batch_and_not_one_image():
  g, h = random_groups(0), random_groups(1)
  together = jax.grad(losses.soft_mining_loss, 1)(g, h, 3.0)[0]
  alone = jnp.concatenate(
    [
      jax.grad(losses.soft_mining_loss, 1)(
        [x[i : i + 1] for x in g], [x[i : i + 1] for x in h], 3.0
      )[0]
      for i in range(SHAPE[0])
    ]
  )
  ratio = jnp.linalg.norm(together * SHAPE[0], axis=(1, 2))
  ratio /= jnp.linalg.norm(alone, axis=(1, 2))
  # The first image is the hardest: the batch's mean weighs it more than its
  # own mean would, and the last one less.
  assert ratio[0] > 1.5 and ratio[-1] < 0.5


def test_gradient_follows_the_cotangent():
  g, h = random_groups(0), random_groups(1)
  once = jax.grad(losses.soft_mining_loss, 1)(g, h)
  loss = lambda h: -2.5 * losses.soft_mining_loss(g, h)  # noqa: E731
  for a, b in zip(jax.grad(loss)(h), once, strict=True):
    np.testing.assert_allclose(a, -2.5 * b, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("gamma", [0.0, 3.0])
def test_encoder_groups_get_no_gradient(gamma):
  g, h = random_groups(0), random_groups(1)
  for gradient in jax.grad(losses.soft_mining_loss, 0)(g, h, gamma):
    np.testing.assert_array_equal(gradient, np.zeros(SHAPE))


def test_scale_of_a_group_changes_nothing_but_the_gradients_length():
  g, h = random_groups(0), random_groups(1)
  scaled = [x * 8.0 for x in h]
  loss = jax.value_and_grad(losses.soft_mining_loss, 1)
  value, gradient = loss(g, h)
  other, shorter = loss([x * 0.25 for x in g], scaled)
  np.testing.assert_allclose(other, value, rtol=1e-6)
  for a, b in zip(shorter, gradient, strict=True):
    np.testing.assert_allclose(a, b / 8, rtol=1e-4, atol=1e-8)


def test_value_lies_between_identical_and_opposite():
  g = random_groups(0)
  opposite = [-x for x in g]
  assert losses.soft_mining_loss(g, g) == pytest.approx(0, abs=1e-6)
  assert losses.soft_mining_loss(g, opposite) == pytest.approx(2, abs=1e-6)


def test_identical_groups_have_no_gradient_to_speak_of():
  g = random_groups(0)
  for gradient in jax.grad(losses.soft_mining_loss, 1)(g, g, 3.0):
    # Rounding leaves distances of 1e-7, whose ratios are arbitrary.
    np.testing.assert_allclose(gradient, 0, atol=1e-5)


@pytest.mark.parametrize("gamma", [0.0, 3.0])
@pytest.mark.parametrize(
  "where", ["encoder", "decoder", "both", "one position"]
)
def test_zero_vectors_give_finite_value_and_gradient(where, gamma):
  g, h = random_groups(0), random_groups(1)
  if where in ("encoder", "both"):
    g = [jnp.zeros_like(x) for x in g]
  if where in ("decoder", "both"):
    h = [jnp.zeros_like(x) for x in h]
  if where == "one position":
    h = [x.at[0, 2].set(0) for x in h]
  value, gradient = jax.value_and_grad(losses.soft_mining_loss, 1)(g, h, gamma)
  assert 0 <= value <= 2
  if where != "one position":
    assert value == 1  # cos with a zero vector is 0
  assert all(jnp.isfinite(x).all() for x in gradient)


def test_orthogonal_unit_distance_everywhere_leaves_the_gradient_as_it_is():
  # D is 1 at every position, hence w = 1 whatever gamma.
  g = [jnp.zeros(SHAPE).at[..., 0].set(1.0)]
  h = [jnp.zeros(SHAPE).at[..., 1].set(2.0)]
  plain = jax.grad(losses.soft_mining_loss, 1)(g, h, 0.0)[0]
  mined = jax.grad(losses.soft_mining_loss, 1)(g, h, 3.0)[0]
  assert jnp.abs(plain).max() > 0
  np.testing.assert_allclose(mined, plain, rtol=1e-6)


def test_unequal_numbers_of_groups_are_refused():
  with pytest.raises(ValueError):
    losses.soft_mining_loss(random_groups(count=2), random_groups(count=1))


def test_jit_gives_what_eager_gives():
  g, h = random_groups(0), random_groups(1)
  loss = jax.value_and_grad(losses.soft_mining_loss, 1)
  eager, jitted = loss(g, h, 3.0), jax.jit(loss, static_argnums=2)(g, h, 3.0)
  for a, b in zip(jax.tree.leaves(jitted), jax.tree.leaves(eager), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-8)


def test_coherence_loss_is_the_mean_over_images_and_patches():
  distance = jnp.asarray([[0.0, 0.5, 1.0], [2.0, 0.0, 0.1]])
  assert losses.coherence_loss(distance) == pytest.approx(0.6)
  gradient = jax.grad(losses.coherence_loss)(distance)
  np.testing.assert_allclose(gradient, np.full((2, 3), 1 / 6), rtol=1e-6)


def output_with(distance) -> INPFormerOutput:
  return INPFormerOutput(
    encoder_groups=tuple(random_groups(0)),
    decoder_groups=tuple(random_groups(1)),
    inps=None,
    inp_distance=distance,
    extractor_attention=None,
  )


def test_total_loss_adds_the_weighted_coherence_loss():
  output = output_with(jnp.full(SHAPE[:2], 0.3))
  mining = losses.soft_mining_loss(output.encoder_groups, output.decoder_groups)
  loss, parts = losses.total_loss(output)
  assert set(parts) == {"loss", "soft_mining_loss", "coherence_loss"}
  assert parts["soft_mining_loss"] == mining
  assert parts["coherence_loss"] == pytest.approx(0.3)
  assert loss == parts["loss"] == pytest.approx(float(mining) + 0.2 * 0.3)
  heavier, _ = losses.total_loss(output, coherence_weight=1.0)
  assert heavier == pytest.approx(float(mining) + 0.3)


def test_total_loss_passes_gamma_on():
  output = output_with(None)

  def gradient(gamma):
    def loss(h):
      changed = INPFormerOutput(output.encoder_groups, h, None, None, None)
      return losses.total_loss(changed, gamma=gamma)[0]

    return jax.grad(loss)(output.decoder_groups)[0]

  for gamma in (0.0, 3.0):
    groups = output.encoder_groups[0], output.decoder_groups[0]
    expected, _ = mined_gradient(*groups, gamma, num_groups=2)
    np.testing.assert_allclose(gradient(gamma), expected, rtol=1e-4, atol=1e-8)


def test_total_loss_without_inps_is_the_soft_mining_loss_alone():
  output = output_with(None)
  loss, parts = losses.total_loss(output)
  assert set(parts) == {"loss", "soft_mining_loss"}
  assert loss == parts["loss"] == parts["soft_mining_loss"]


_EIGHT_DEVICES = """
import jax, jax.numpy as jnp, numpy as np
from inp_former_jax import sharding
from inp_former_jax.training import losses

def groups(seed):
  rng = np.random.default_rng(seed)
  offset = np.linspace(0, 3, 8)[:, None, None]
  shape = (8, 5, 7)
  return [(rng.normal(size=shape) + offset).astype("f") for _ in range(2)]

loss = jax.jit(jax.value_and_grad(losses.soft_mining_loss, 1))
g, h = groups(0), groups(1)
one = loss(g, h)
mesh = sharding.make_mesh(data=2, fsdp=4)
place = lambda x: jax.device_put(x, sharding.batch_sharding(mesh))
eight = loss(*jax.tree.map(place, (g, h)))
assert len(eight[1][0].sharding.device_set) == 8, eight[1][0].sharding
for a, b in zip(jax.tree.leaves(eight), jax.tree.leaves(one), strict=True):
  np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-8)
print("agreed")
"""


def test_eight_devices_give_the_loss_and_gradient_of_one():
  assert_agrees_on_eight_devices(_EIGHT_DEVICES)
