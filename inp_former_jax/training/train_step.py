"""The training step of INP-Former, as a pure function."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh

from inp_former_jax import sharding
from inp_former_jax.data import augment, transforms
from inp_former_jax.models import placement
from inp_former_jax.models.inp_former import INPFormer
from inp_former_jax.models.precision import at_least_float32
from inp_former_jax.training import losses

State = tuple[nnx.State, optax.OptState]  # trainable part, optimizer's state


def make_train_step(
  graphdef: nnx.GraphDef,
  optimizer: optax.GradientTransformation,
  *,
  gamma: float = losses.GAMMA,
  coherence_weight: float = losses.COHERENCE_WEIGHT,
  normalise: Callable[[jax.Array], jax.Array] = transforms.normalise,
) -> Callable[..., tuple[State, dict[str, jax.Array]]]:
  """Builds the training step, to be jitted with its state donated.

  The frozen encoder is an argument of the step and gets no gradient.

  Args:
    graphdef: Graph definition of an `INPFormer`, from `inp_former.split`.
    optimizer: The optimizer, whose update gets the parameters.
    gamma: Exponent of the soft mining weight.
    coherence_weight: The weight lambda of the coherence loss.
    normalise: Function from the images of a batch to the model's input.

  Returns:
    A function (state, frozen, images=None, augmentation=None, groups=None) ->
    (state, metrics). The images are uint8 (B, H, W, 3); the augmentation, (B,)
    int32, holds numbers for `augment.augment` (few-shot training). The groups,
    (B, 2, N, C), are what `make_encode` computes of the images; a batch holds
    either images or groups. The metrics are scalars: the loss, its parts, and
    the norm of the gradient before clipping.
  """

  def loss_fn(trainable, frozen, groups):
    model = nnx.merge(graphdef, trainable, frozen)
    output = model.reconstruct(groups)
    with jax.named_scope("loss"):
      return losses.total_loss(
        output, gamma=gamma, coherence_weight=coherence_weight
      )

  def train_step(state, frozen, images=None, augmentation=None, groups=None):
    trainable, opt_state = state
    if groups is not None:
      groups = (groups[:, 0], groups[:, 1])
    else:
      assert images is not None  # a batch holds either
      model = nnx.merge(graphdef, trainable, frozen)
      groups = _encode(model, normalise(images), augmentation)
    # Without the barrier, XLA would compile the rest together with the encoder,
    # round otherwise than with groups from a cache, and training amplifies
    # rounding.
    groups = jax.lax.optimization_barrier(
      tuple(at_least_float32(group) for group in groups)
    )
    grads, metrics = jax.grad(loss_fn, has_aux=True)(trainable, frozen, groups)
    with jax.named_scope("optimizer"):
      updates, opt_state = optimizer.update(grads, opt_state, trainable)
      metrics["gradient_norm"] = optax.global_norm(grads)
      trainable = optax.apply_updates(trainable, updates)
    return (trainable, opt_state), metrics

  return train_step


def jit_train_step(
  graphdef: nnx.GraphDef,
  optimizer: optax.GradientTransformation,
  mesh: Mesh,
  shardings: State,
  *,
  gamma: float = losses.GAMMA,
  coherence_weight: float = losses.COHERENCE_WEIGHT,
) -> Callable[..., tuple[State, dict[str, jax.Array]]]:
  """Compiles the training step for a mesh; its state is donated.

  Args:
    graphdef: Graph definition of an `INPFormer`, from `inp_former.split`.
    optimizer: The optimizer.
    mesh: The devices, over which batches are spread.
    shardings: The shardings of the state.
    gamma: Exponent of the soft mining weight.
    coherence_weight: The weight lambda of the coherence loss.

  Returns:
    The jitted function of `make_train_step`.
  """
  train_step = make_train_step(
    graphdef, optimizer, gamma=gamma, coherence_weight=coherence_weight
  )
  return jax.jit(
    placement.on_mesh(mesh)(train_step),
    donate_argnums=0,
    out_shardings=(shardings, sharding.replicated(mesh)),
  )


def encodes_apart(mesh: Mesh) -> bool:
  """Returns whether the encoder is a program of its own on these devices.

  On a CPU it is: in one program with the rest, its activations are spread over
  the memory of the whole step, of which the cache holds little, and the step
  takes 6 % longer.

  Args:
    mesh: The devices that train.
  """
  return mesh.devices.flat[0].platform == "cpu"


def jit_encode(
  graphdef: nnx.GraphDef, trainable: nnx.State, mesh: Mesh
) -> Callable[..., jax.Array]:
  """Compiles the encoder for a mesh, for a step that is given its groups.

  Args:
    graphdef: Graph definition of an `INPFormer`, from `inp_former.split`.
    trainable: The structure of its trainable part, which may be abstract.
    mesh: The devices, over which batches are spread.

  Returns:
    A jitted function (frozen, images, augmentation=None) -> the encoder groups,
    (B, 2, N, C) float32.
  """
  encode = functools.partial(
    make_encode(graphdef), jax.eval_shape(lambda: trainable)
  )
  return jax.jit(
    placement.on_mesh(mesh)(encode),
    out_shardings=sharding.batch_sharding(mesh),
  )


def make_encode(
  graphdef: nnx.GraphDef,
  *,
  normalise: Callable[[jax.Array], jax.Array] = transforms.normalise,
) -> Callable[..., jax.Array]:
  """Builds the part of the training step that no parameter influences.

  Args:
    graphdef: Graph definition of an `INPFormer`, from `inp_former.split`.
    normalise: Function from the images of a batch to the model's input.

  Returns:
    A function (trainable, frozen, images, augmentation=None) -> the encoder
    groups, (B, 2, N, C) float32. Of the trainable part only the structure is
    used, so it may be abstract.
  """

  def encode(trainable, frozen, images, augmentation=None):
    model = nnx.merge(graphdef, trainable, frozen)
    groups = _encode(model, normalise(images), augmentation)
    return jnp.stack(groups, axis=1)

  return encode


def _encode(
  model: INPFormer, images: jax.Array, augmentation: jax.Array | None
) -> tuple[jax.Array, jax.Array]:
  """Computes the groups of normalised images, which it augments first."""
  if augmentation is not None:
    images = augment.augment(images, augmentation)
  return model.encode(images)
