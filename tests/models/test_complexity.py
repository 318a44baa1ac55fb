"""Complexity: the paper's numbers, a built model, and the traced products."""

import math

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from inp_former_jax.models import complexity, vit
from inp_former_jax.models.inp_former import INPFormer


@pytest.mark.parametrize(
  "variant, parameters, multiply_adds",
  [("small", 35.1, 24.6), ("base", 139.8, 98.0), ("large", 361.7, 263.4)],
)
def test_published_sizes_are_the_papers(variant, parameters, multiply_adds):
  counts = complexity.count(f"dinov2reg_vit_{variant}_14", 392, 392)
  assert counts.layer_parameters / 1e6 == pytest.approx(parameters, abs=0.1)
  assert counts.multiply_adds / 1e9 == pytest.approx(multiply_adds, rel=0.02)
  assert counts.parameters > counts.layer_parameters


def test_small_at_224_takes_the_papers_multiply_adds():
  counts = complexity.count("dinov2reg_vit_small_14", 224, 224)
  assert counts.multiply_adds / 1e9 == pytest.approx(8.1, rel=0.02)


@pytest.mark.parametrize("name", ["dinov2reg_vit_tiny_14", "dinov2_vit_tiny_14"])
def test_parameters_are_those_of_a_built_model(name):
  variant, num_registers = vit.parse_encoder_name(name)
  model = INPFormer(variant, num_registers, num_prototypes=3, rngs=nnx.Rngs(0))
  sizes = [leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param))]
  counts = complexity.count(name, 56, 42, num_prototypes=3)
  assert counts.parameters == sum(sizes)
  # What the paper leaves out: tokens, positions, LayerScale, head scales.
  width, blocks = variant.width, len(model.encoder.blocks)
  tokens = 1 + 1370 + num_registers + 3
  left_out = (tokens + 2 * blocks) * width + 8 * variant.num_heads
  assert counts.layer_parameters == sum(sizes) - left_out


def trace(name: str, height: int, width: int, num_prototypes: int):
  """The forward pass of one image as a jaxpr."""
  variant, num_registers = vit.parse_encoder_name(name)

  def forward(images):
    model = INPFormer(
      variant, num_registers, num_prototypes=num_prototypes, rngs=nnx.Rngs(0)
    )
    return model(images)

  images = jax.ShapeDtypeStruct((1, height, width, 3), jnp.float32)
  return jax.make_jaxpr(forward)(images)


def count_products(jaxpr) -> int:
  """Multiply-adds of all matrix products in a jaxpr, nested ones too."""
  total = 0
  for equation in jaxpr.eqns:
    if equation.primitive.name == "dot_general":
      (contracted, _), _ = equation.params["dimension_numbers"]
      left = equation.invars[0].aval.shape
      inner = math.prod(left[axis] for axis in contracted)
      total += inner * math.prod(equation.outvars[0].aval.shape)
    for parameter in equation.params.values():
      nested = getattr(parameter, "jaxpr", parameter)
      if hasattr(nested, "eqns"):
        total += count_products(nested)
  return total


@pytest.mark.parametrize(
  "name, height, width, num_prototypes",
  [
    ("dinov2reg_vit_tiny_14", 56, 42, 6),
    ("dinov2_vit_tiny_14", 42, 70, 3),
    ("dinov2reg_vit_small_14", 224, 224, 6),
  ],
)
def test_counts_are_those_of_the_traced_matrix_products(
  name, height, width, num_prototypes
):
  """Exactly, but for the position table's resize: not a layer, not counted."""
  traced = trace(name, height, width, num_prototypes)
  counts = complexity.count(name, height, width, num_prototypes=num_prototypes)
  rows, columns = height // 14, width // 14
  channels = vit.parse_encoder_name(name)[0].width
  # einsum may contract rows or columns first.
  resizes = [
    channels * (a * 37 * 37 + rows * columns * 37) for a in (rows, columns)
  ]
  resize = count_products(traced.jaxpr) - (
    counts.multiply_adds + counts.attention_multiply_adds
  )
  assert resize in resizes


def test_counts_do_not_depend_on_the_side_that_is_longer():
  wide = complexity.count("dinov2_vit_tiny_14", 42, 70)
  assert wide == complexity.count("dinov2_vit_tiny_14", 70, 42)
  assert wide.parameters == complexity.count("dinov2_vit_tiny_14", 56, 56).parameters


def test_unknown_encoder_is_refused():
  with pytest.raises(ValueError, match="Unknown encoder"):
    complexity.count("resnet50", 224, 224)
