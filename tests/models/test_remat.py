"""Computing the decoder again for the gradient changes memory, not results."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from inp_former_jax.models import inp_former, vit
from inp_former_jax.training import losses

SHORT = vit.Variant(
  width=48, depth=4, num_heads=3, target_blocks=(0, 1, 2, 3), position_grid=6
)


def loss_and_arguments(*, remat: bool, use_inps: bool):
  """The loss as a function of the trainable part, and the latter."""
  model = inp_former.INPFormer(
    SHORT, use_inps=use_inps, remat=remat, rngs=nnx.Rngs(0)
  )
  graphdef, trainable, frozen = inp_former.split(model)
  groups = tuple(
    jax.random.normal(jax.random.key(i), (2, 36, 48)) for i in range(2)
  )

  def loss(trainable):
    output = nnx.merge(graphdef, trainable, frozen).reconstruct(groups)
    return losses.total_loss(output)[0]

  return loss, trainable


@pytest.mark.parametrize("use_inps", [True, False])
def test_the_gradient_stays_the_same(use_inps):
  results = []
  for remat in (False, True):
    loss, trainable = loss_and_arguments(remat=remat, use_inps=use_inps)
    with jax.default_matmul_precision("highest"):
      results.append(jax.jit(jax.value_and_grad(loss))(trainable))
  (value, gradient), (same_value, same_gradient) = results
  np.testing.assert_allclose(same_value, value, rtol=1e-6)
  change = jax.tree.map(jnp.subtract, same_gradient, gradient)
  norm = optax.global_norm(gradient)
  assert optax.global_norm(change) < 1e-6 * norm


@pytest.mark.parametrize("use_inps", [True, False])
def test_less_is_kept_for_the_gradient(use_inps):
  kept = []
  for remat in (False, True):
    loss, trainable = loss_and_arguments(remat=remat, use_inps=use_inps)
    backward = jax.eval_shape(lambda t, f=loss: jax.vjp(f, t)[1], trainable)
    kept.append(sum(math.prod(x.shape) for x in jax.tree.leaves(backward)))
  parameters = sum(x.size for x in jax.tree.leaves(trainable))
  assert kept[1] - parameters < 0.5 * (kept[0] - parameters)
