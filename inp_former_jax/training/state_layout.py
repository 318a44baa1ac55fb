"""Where the parts of a training state lie on the devices."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import optax
from jax.sharding import Mesh

from inp_former_jax import sharding


@dataclasses.dataclass(frozen=True)
class StateLayout:
  """The layout of a state of trainable part and optimizer.

  Attributes:
    abstract: Shapes, dtypes and shardings of both.
    shardings: Their shardings alone.
    init_optimizer: Jitted function from the trainable part to the optimizer's
      state.
  """

  abstract: tuple[Any, Any]
  shardings: tuple[Any, Any]
  init_optimizer: Callable[[Any], Any]


def lay_out(
  optimizer: optax.GradientTransformation, trainable: Any, mesh: Mesh
) -> StateLayout:
  """Decides where the state of a training lies; nothing is computed yet.

  Args:
    optimizer: The optimizer.
    trainable: The trainable part, which may be abstract.
    mesh: The devices, which need not be there.
  """
  state = jax.eval_shape(lambda x: (x, optimizer.init(x)), trainable)
  shardings = sharding.parameter_shardings(mesh, state)
  return StateLayout(
    abstract=sharding.abstract(state, shardings),
    shardings=shardings,
    init_optimizer=jax.jit(optimizer.init, out_shardings=shardings[1]),
  )
