"""The closed-form student: how much of a teacher it keeps."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from inp_former_jax.distillation.initial_student import (
  fit_linear,
  initialise_from_teacher,
)
from inp_former_jax.distillation.student import encoder_groups
from inp_former_jax.models import vit

TEACHER = vit.VARIANTS["nano"]


def build_encoder(variant, num_registers=0, seed=0):
  return vit.VisionTransformer(variant, num_registers, rngs=nnx.Rngs(seed))


def encoder(variant, num_registers=0, seed=0, scale=1.0):
  """Random, with weights so large that blocks and softmax do something."""
  # Compiled, which is quicker than parameter by parameter.
  graphdef, state = jax.jit(
    lambda: nnx.split(build_encoder(variant, num_registers, seed))
  )()
  leaves, tree = jax.tree.flatten(state)
  rng = np.random.default_rng(seed)
  leaves = [
    x + scale * rng.normal(0, 0.15, x.shape).astype(np.float32) for x in leaves
  ]
  return nnx.merge(graphdef, jax.tree.unflatten(tree, leaves))


def images(count, seed=1):
  rng = np.random.default_rng(seed)
  coarse = rng.normal(size=(count, 7, 7, 3))
  return jnp.asarray(coarse.repeat(10, 1).repeat(10, 2), jnp.float32)


compiled_groups = nnx.jit(encoder_groups)


def explained(student, teacher, train, test):
  """R2 of a linear map from the student's groups to the teacher's."""
  r2 = []
  for group in range(2):
    x, y, x_test, y_test = (
      compiled_groups(model, batch)[:, group].reshape(-1, model.variant.width)
      for batch in (train, test)
      for model in (student, teacher)
    )
    kernel, bias = fit_linear(x, y)
    error = jnp.square(x_test @ kernel + bias - y_test).sum()
    r2.append(float(1 - error / jnp.square(y_test - y_test.mean(0)).sum()))
  return min(r2)


@pytest.mark.parametrize(
  "blocks, registers",
  [
    (2, (0, 4)),
    pytest.param(10, (0, 4), marks=pytest.mark.slow),
    pytest.param(10, (0, 0), marks=pytest.mark.slow),
    pytest.param(10, (4, 4), marks=pytest.mark.slow),
  ],
)
def test_keeps_nearly_all_of_a_teacher_that_is_hardly_wider(blocks, registers):
  student_registers, teacher_registers = registers
  targets = tuple(range(blocks - min(blocks, 8), blocks))
  teacher = encoder(
    dataclasses.replace(TEACHER, target_blocks=targets), teacher_registers
  )
  train, test = images(40), images(8, seed=2)
  variant = vit.Variant(45, blocks, num_heads=3, target_blocks=targets)
  student = encoder(variant, student_registers, seed=5)
  before = explained(student, teacher, train, test)
  initialise_from_teacher(student, teacher, train)
  after = explained(student, teacher, train, test)
  assert after > 0.9
  assert after > before + 0.2


@pytest.mark.slow
@pytest.mark.long
def test_wider_students_keep_more():
  teacher, train, test = encoder(TEACHER), images(40), images(8, seed=2)
  kept = []
  for width in (12, 24, 42):
    student = encoder(vit.Variant(width, 10, 3), seed=5)
    initialise_from_teacher(student, teacher, train)
    kept.append(explained(student, teacher, train, test))
  assert kept == sorted(kept)
  assert kept[0] < kept[2] - 0.05


@pytest.mark.slow
@pytest.mark.long
def test_a_deep_teacher_hands_over_its_target_blocks():
  deep = vit.Variant(48, 24, 3, target_blocks=(4, 6, 8, 10, 12, 14, 16, 18))
  teacher = encoder(deep, scale=0.5)
  train, test = images(40), images(8, seed=2)
  student = encoder(vit.Variant(45, 10, 3), seed=5)
  before = explained(student, teacher, train, test)
  initialise_from_teacher(student, teacher, train)
  assert explained(student, teacher, train, test) > max(0.6, before + 0.2)


@pytest.mark.slow
@pytest.mark.long
def test_fewer_heads_keep_the_strongest():
  teacher, train = encoder(TEACHER), images(20)
  student, test = encoder(vit.Variant(32, 10, 2), seed=5), images(8, seed=2)
  before = explained(student, teacher, train, test)
  initialise_from_teacher(student, teacher, train)
  assert explained(student, teacher, train, test) > before + 0.1


@pytest.mark.parametrize("width, heads", [(48, 3), (64, 2), (24, 4)])
def test_only_narrower_students(width, heads):
  student, teacher = (
    nnx.eval_shape(functools.partial(build_encoder, variant))
    for variant in (vit.Variant(width, 10, heads), TEACHER)
  )
  with pytest.raises(ValueError, match="from a teacher .* `initial`="):
    initialise_from_teacher(student, teacher, images(2))


def test_fit_linear_finds_the_map():
  rng = np.random.default_rng(0)
  kernel, bias = rng.normal(size=(5, 3)), rng.normal(size=3)
  x = rng.normal(2.0, 1.0, (4000, 5))
  found, found_bias = fit_linear(jnp.asarray(x), jnp.asarray(x @ kernel + bias))
  np.testing.assert_allclose(found, kernel, atol=5e-3)  # the ridge's share
  np.testing.assert_allclose(found_bias, bias, atol=2e-2)
