"""Makes sure that a state is finite before it is saved."""

from typing import Any

import jax
import jax.numpy as jnp

from inp_former_jax.terminal import shortened

_SHOWN = 3  # names in the error


def require_finite(step: int, trainable: Any, opt_state: Any) -> None:
  """Checks all parameters and the optimizer's state.

  The loss of a step is computed before its update, so that the loss of the last
  step says nothing of the parameters that it leaves.

  Args:
    step: Number of steps taken so far, for the message.
    trainable: Trainable part of the model, a pytree of arrays.
    opt_state: State of the optimizer, a pytree of arrays.

  Raises:
    FloatingPointError: If a value is infinite or not a number. The message says
      in which arrays.
  """
  state = {"parameters": trainable, "optimizer": opt_state}
  if _all_finite(state):
    return
  finite = jax.tree_util.tree_leaves_with_path(_finite_leaves(state))
  names = [jax.tree_util.keystr(p) for p, good in finite if not good]
  raise FloatingPointError(
    f"The state after step {step} is not finite ({shortened(names, _SHOWN)}), "
    "so it is not saved. Start again in another workdir, with a lower "
    "`peak_learning_rate` or in float32, `dtype`=float32."
  )


def _finite_leaves(state: Any) -> Any:
  return jax.tree.map(lambda x: jnp.isfinite(x).all(), state)


@jax.jit
def _all_finite(state: Any) -> jax.Array:
  leaves = jax.tree.leaves(_finite_leaves(state))
  return jnp.stack(leaves).all() if leaves else jnp.array(True)
