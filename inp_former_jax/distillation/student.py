"""The student during distillation: an encoder with a linear head per group."""

from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from inp_former_jax.data import transforms
from inp_former_jax.distillation.chunks import map_chunks
from inp_former_jax.distillation.initial_student import fit_linear
from inp_former_jax.models import vit
from inp_former_jax.models.inp_former import mean_features
from inp_former_jax.training.train_step import State

ArrayT = TypeVar("ArrayT", np.ndarray, jax.Array)

# Letters in shapes: B batch, N patches, S side of an image in pixels, C width
# of the student, D width of the teacher. The two groups are the means of e0..e3
# and of e4..e7.


def encoder_groups(
  encoder: vit.VisionTransformer, images: vit.AnyArray
) -> jax.Array:
  """Computes the target groups of an encoder.

  Args:
    encoder: An encoder of width C.
    images: Normalised images, (B, S, S, 3).

  Returns:
    The two groups, (B, 2, N, C) float32.
  """
  features = encoder.target_features(images)
  half = len(features) // 2
  return jnp.stack(
    [mean_features(features[:half]), mean_features(features[half:])], axis=1
  )


class Student(nnx.Module):
  """An encoder with heads that predict the groups of a teacher.

  The head of a group is a layer norm and a linear map. The heads are dropped
  after the distillation.
  """

  def __init__(
    self, encoder: vit.VisionTransformer, teacher_width: int, rngs: nnx.Rngs
  ):
    """Puts heads on an encoder.

    Args:
      encoder: The encoder that learns.
      teacher_width: Width D of the teacher.
      rngs: Source of the heads' initial values.
    """
    self.encoder = encoder
    self.heads = nnx.List(
      nnx.Linear(encoder.variant.width, teacher_width, rngs=rngs)
      for _ in range(2)
    )

  def __call__(self, images: vit.AnyArray) -> jax.Array:
    """Predicts the standardised targets of images.

    Args:
      images: Normalised images, (B, S, S, 3).

    Returns:
      The predictions, (B, 2, N, D).
    """
    groups = _layer_norm(encoder_groups(self.encoder, images))
    return jnp.stack(
      [head(groups[:, i]) for i, head in enumerate(self.heads)], axis=1
    )

  def fit_heads(self, images: vit.AnyArray, targets: jax.Array) -> None:
    """Fits the heads by least squares, and leaves the encoder unchanged.

    Args:
      images: Normalised images, (B, S, S, 3).
      targets: Standardised targets of the images, (B, 2, N, D).
    """
    groups = map_chunks(_normed_groups, (self.encoder,), images)
    for i, head in enumerate(self.heads):
      kernel, bias = fit_linear(
        groups[:, i].reshape(-1, groups.shape[-1]),
        targets[:, i].reshape(-1, targets.shape[-1]),
      )
      assert head.bias is not None  # heads are built with a bias
      head.kernel[...] = jnp.asarray(kernel, jnp.float32)
      head.bias[...] = jnp.asarray(bias, jnp.float32)


def _normed_groups(encoder: vit.VisionTransformer, images: vit.AnyArray):
  return _layer_norm(encoder_groups(encoder, images))


def _layer_norm(x: jax.Array) -> jax.Array:
  x = x - x.mean(axis=-1, keepdims=True)
  variance = jnp.square(x).mean(axis=-1, keepdims=True)
  return x * jax.lax.rsqrt(variance + vit.LAYER_NORM_EPS)


def standardise(
  groups: ArrayT, mean: np.ndarray, deviation: np.ndarray
) -> ArrayT:
  """Standardises groups to mean 0 and variance 1.

  Args:
    groups: The groups, (B, 2, N, D), of any float type.
    mean: Mean of each channel, (2, 1, D).
    deviation: Standard deviation of each channel, (2, 1, D).

  Returns:
    The standardised groups, float32.
  """
  return (groups.astype(jnp.float32) - mean) / deviation


def make_distill_step(
  graphdef: nnx.GraphDef,
  optimizer: optax.GradientTransformation,
  mean: np.ndarray,
  deviation: np.ndarray,
) -> Callable[..., tuple[State, dict[str, jax.Array]]]:
  """Builds the training step of the distillation.

  The loss is the smooth L1 between prediction and standardised target. Without
  the standardisation, the student would learn only the mean that all patches
  share, which makes up most of a cosine similarity.

  Args:
    graphdef: Graph definition of a `Student`.
    optimizer: The optimizer, whose update gets the parameters.
    mean: Mean of each channel of the teacher's groups, (2, 1, D).
    deviation: Standard deviation of each channel of the teacher's groups,
      (2, 1, D).

  Returns:
    A function (state, images, groups) -> (state, metrics), to be jitted with
    its state donated. The images are uint8 (B, S, S, 3), the groups
    (B, 2, N, D).
  """

  def loss_fn(trainable, images, groups):
    student = nnx.merge(graphdef, trainable)
    predicted = student(transforms.normalise(images))
    target = standardise(groups, mean, deviation)
    loss = optax.huber_loss(predicted, target).mean()
    error = jnp.square(predicted - target).mean()
    return loss, {"loss": loss, "squared_error": error}

  def distill_step(state, images, groups):
    trainable, opt_state = state
    grads, metrics = jax.grad(loss_fn, has_aux=True)(trainable, images, groups)
    updates, opt_state = optimizer.update(grads, opt_state, trainable)
    metrics["gradient_norm"] = optax.global_norm(grads)
    return (optax.apply_updates(trainable, updates), opt_state), metrics

  return distill_step
