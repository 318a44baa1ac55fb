"""Complexity: the paper's numbers, a built model, and the traced products."""

import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from inp_former_jax.models import attention, complexity, inp_former, vit
from inp_former_jax.models.inp_former import INPFormer
from inp_former_jax.training import losses
from tests.conftest import GOLDENS

NANO, FEMTO = vit.VARIANTS["nano"], vit.VARIANTS["femto"]


@pytest.mark.parametrize(
  "variant, parameters, multiply_adds",
  [("small", 35.1, 24.6), ("base", 139.8, 98.0), ("large", 361.7, 263.4)],
)
def test_published_sizes_are_the_papers(variant, parameters, multiply_adds):
  counts = complexity.count(vit.VARIANTS[variant], 4, 392, 392)
  assert counts.layer_parameters / 1e6 == pytest.approx(parameters, abs=0.1)
  assert counts.multiply_adds / 1e9 == pytest.approx(multiply_adds, rel=0.02)
  assert counts.parameters > counts.layer_parameters


def test_small_at_224_takes_the_papers_multiply_adds():
  counts = complexity.count(vit.VARIANTS["small"], 4, 224, 224)
  assert counts.multiply_adds / 1e9 == pytest.approx(8.1, rel=0.02)


@pytest.mark.parametrize("kind", ["reg4", "noreg"])
def test_parameters_are_those_of_the_originals_checkpoint(kind):
  """Less what is never run: two blocks, the final norm and the mask token."""
  with np.load(GOLDENS / f"tiny_{kind}_params.npz") as file:
    sizes = {key: file[key].size for key in file.files}
  unused = re.compile(r"encoder\.(blocks\.1[01]\.|norm\.|mask_token).*")
  used = {k: size for k, size in sizes.items() if not unused.fullmatch(k)}
  assert len(used) < len(sizes)
  num_registers = {"reg4": 4, "noreg": 0}[kind]
  counts = complexity.count(NANO, num_registers, 56, 42)
  assert counts.parameters == sum(used.values())
  # What the paper leaves out: tokens, positions, LayerScale, head scales.
  left_out = re.compile(
    r".*(token|tokens|token\.0|pos_embed|gamma|learn_scale)"
  )
  assert counts.layer_parameters == sum(
    size for key, size in used.items() if not left_out.fullmatch(key)
  )


def trace(num_registers: int, height: int, width: int, num_prototypes: int):
  """The forward pass of one image as a jaxpr."""

  def forward(images):
    model = INPFormer(
      FEMTO,
      num_registers,
      num_prototypes=num_prototypes,
      attention=attention.XLA,  # no loops, whose products would count once
      rngs=nnx.Rngs(0),
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
  "num_registers, height, width, num_prototypes",
  [(4, 56, 42, 6), (0, 42, 70, 3)],
)
def test_counts_are_those_of_the_traced_matrix_products(
  num_registers, height, width, num_prototypes
):
  """Exactly, but for two products that are no layers, hence not counted.

  They are the resize of the position table, and the INP distance.
  """
  traced = trace(num_registers, height, width, num_prototypes)
  counts = complexity.count(
    FEMTO, num_registers, height, width, num_prototypes=num_prototypes
  )
  rows, columns = height // 14, width // 14
  channels = FEMTO.width
  # einsum may contract rows or columns first.
  resizes = [
    channels * (a * 37 * 37 + rows * columns * 37) for a in (rows, columns)
  ]
  distance = rows * columns * num_prototypes * channels
  resize = count_products(traced.jaxpr) - (
    counts.multiply_adds + counts.attention_multiply_adds + distance
  )
  assert resize in resizes


@pytest.mark.parametrize("use_inps", [True, False])
def test_counts_of_a_step_are_those_of_the_traced_gradient(use_inps):
  """Of the trainable part, whose input no gradient reaches."""
  model = INPFormer(
    FEMTO, use_inps=use_inps, attention=attention.XLA, rngs=nnx.Rngs(0)
  )
  graphdef, trainable, frozen = inp_former.split(model)
  patches, channels = 12, FEMTO.width
  groups = jnp.ones((1, patches, channels))

  def loss(trainable):
    merged = nnx.merge(graphdef, trainable, frozen)
    output = merged.reconstruct((groups, 2 * groups))
    return losses.total_loss(output)[0]

  traced = count_products(jax.make_jaxpr(jax.grad(loss))(trainable).jaxpr)
  counts = complexity.count(FEMTO, 0, 42, 56, use_inps=use_inps)
  # The INP distance and its gradient at the INPs are no layer.
  distance = 2 * patches * inp_former.NUM_PROTOTYPES * channels * use_inps
  assert counts.cached_step_flops == 2 * (traced - distance)
  assert counts.step_flops - counts.cached_step_flops == 2 * (
    counts.encoder_multiply_adds
  )
  assert counts.predict_flops < counts.step_flops
