"""The training step of INP-Former, as a pure function."""

from collections.abc import Callable

import jax
import optax
from flax import nnx

from inp_former_jax.data import augment, transforms
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
    A function (state, frozen, images, augmentation=None) -> (state, metrics).
    The images are uint8 (B, H, W, 3); the augmentation, (B,) int32, holds
    numbers for `augment.augment` (few-shot training). The metrics are scalars:
    the loss, its parts, and the norm of the gradient before clipping.
  """

  def loss_fn(trainable, frozen, images, augmentation):
    images = normalise(images)
    if augmentation is not None:
      images = augment.augment(images, augmentation)
    output = nnx.merge(graphdef, trainable, frozen)(images)
    with jax.named_scope("loss"):
      return losses.total_loss(
        output, gamma=gamma, coherence_weight=coherence_weight
      )

  def train_step(state, frozen, images, augmentation=None):
    trainable, opt_state = state
    grads, metrics = jax.grad(loss_fn, has_aux=True)(
      trainable, frozen, images, augmentation
    )
    with jax.named_scope("optimizer"):
      updates, opt_state = optimizer.update(grads, opt_state, trainable)
      metrics["gradient_norm"] = optax.global_norm(grads)
      trainable = optax.apply_updates(trainable, updates)
    return (trainable, opt_state), metrics

  return train_step
