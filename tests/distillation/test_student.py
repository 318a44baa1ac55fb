"""What a student is measured by."""

import jax.numpy as jnp
import numpy as np
from flax import nnx

from inp_former_jax.distillation.held_out import ExplainedVariance
from inp_former_jax.distillation.student import (
  Student,
  encoder_groups,
  standardise,
)
from inp_former_jax.models import vit

TINY = vit.Variant(12, 8, 2, target_blocks=tuple(range(8)))


def test_explained_variance_of_known_predictions():
  rng = np.random.default_rng(0)
  target = rng.normal(3.0, 1.0, (6, 2, 5, 4))
  perfect, mean, half = (ExplainedVariance() for _ in range(3))
  for part in (slice(0, 2), slice(2, 6)):  # adds up over batches
    y = target[part]
    perfect.add(y, y)
    centre = target.mean(axis=(0, 2), keepdims=True) + 0 * y
    mean.add(centre, y)
    half.add((y + centre) / 2, y)
  np.testing.assert_allclose(perfect.result(), 1.0)
  np.testing.assert_allclose(mean.result(), 0.0, atol=1e-9)
  np.testing.assert_allclose(half.result(), 0.75, atol=1e-9)


def test_standardise():
  groups = np.arange(24, dtype=np.float16).reshape(2, 2, 3, 2)
  mean, deviation = np.full((2, 1, 2), 4.0), np.full((2, 1, 2), 2.0)
  result = standardise(jnp.asarray(groups), mean, deviation)
  assert result.dtype == jnp.float32
  np.testing.assert_allclose(result, (groups.astype(float) - 4) / 2)


def test_fitted_heads_predict_what_is_linear_in_the_groups():
  encoder = vit.VisionTransformer(TINY, rngs=nnx.Rngs(0))
  student = Student(encoder, teacher_width=7, rngs=nnx.Rngs(1))
  rng = np.random.default_rng(0)
  images = jnp.asarray(rng.normal(0, 3, (30, 28, 28, 3)), jnp.float32)
  groups = encoder_groups(encoder, images)
  assert groups.shape == (30, 2, 4, 12)
  centred = groups - groups.mean(-1, keepdims=True)
  normed = centred / jnp.sqrt(
    jnp.square(centred).mean(-1, keepdims=True) + 1e-6
  )
  targets = normed @ rng.normal(size=(12, 7)) + 0.3
  student.fit_heads(images, targets)
  error = jnp.square(student(images) - targets).mean()
  assert error < 0.01 * targets.var()
