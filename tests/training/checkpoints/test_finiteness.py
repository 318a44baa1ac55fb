"""What is not finite is never saved."""

import jax.numpy as jnp
import numpy as np
import pytest

from inp_former_jax.training import loop
from inp_former_jax.training.checkpoints import finiteness
from inp_former_jax.training.checkpoints.checkpoint import Checkpointer


class Quiet:
  """A log whose losses were all finite, and batches at step 3."""

  def flush(self):
    pass

  def get_state(self):
    return {"next_batch": 3}


def state(**bad):
  parameters = {"kernel": jnp.ones((2, 3)), "bias": jnp.zeros(3)}
  moments = {"count": jnp.array(3), "mu": jnp.ones(3)}
  for name, value in bad.items():
    tree = parameters if name in parameters else moments
    tree[name] = tree[name].at[..., 0].set(value)
  return parameters, moments


def test_a_finite_state_passes():
  finiteness.require_finite(3, *state(bias=np.finfo("f4").max))


@pytest.mark.parametrize("name", ["kernel", "mu"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_state_that_is_not_finite_is_named_and_not_saved(
  tmp_path, name, value
):
  with Checkpointer(tmp_path, {}) as checkpointer:
    save = loop.saving(checkpointer, Quiet(), Quiet())
    with pytest.raises(
      FloatingPointError, match=rf"after step 3 is not finite \(.*{name}.*dtype"
    ):
      save(3, state(**{name: value}))
    assert checkpointer.steps == []


def test_many_arrays_are_counted():
  tree = {f"layer{i}": jnp.full(2, np.nan) for i in range(9)}
  with pytest.raises(FloatingPointError, match="layer2'.* and 6 more"):
    finiteness.require_finite(1, tree, {})
