"""Softmax attention: all forms compute the same, on every kind of device."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.pallas import tpu as pltpu

from inp_former_jax import sharding
from inp_former_jax.models import attention, placement, tpu_attention

# Tokens that are no multiple of anything; fewer and more than a block's.
SHAPES = [(2, 37, 128, 4), (1, 300, 384, 6), (2, 19, 256, 2)]


def random_qkv(batch, tokens, width, dtype=jnp.float32):
  key = jax.random.key(0)
  return jax.random.normal(key, (batch, tokens, 3 * width), dtype)


def by_hand(qkv, num_heads):
  """Attention in float64, written down once more."""
  batch, tokens, channels = qkv.shape
  qkv = np.asarray(qkv, np.float64)
  q, k, v = np.moveaxis(qkv.reshape(batch, tokens, 3, num_heads, -1), 2, 0)
  logits = np.einsum("bqhd,bkhd->bhqk", q, k) / np.sqrt(q.shape[-1])
  weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
  weights /= weights.sum(axis=-1, keepdims=True)
  out = np.einsum("bhqk,bkhd->bqhd", weights, v)
  return out.reshape(batch, tokens, channels // 3)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("form", ["auto", "xla", "by_head", "pallas"])
def test_every_form_is_softmax_attention(form, shape):
  *sizes, heads = shape
  qkv = random_qkv(*sizes)
  with (
    jax.default_matmul_precision("highest"),
    pltpu.force_tpu_interpret_mode(),
  ):
    found = attention.softmax_attention(qkv, heads, form)
  np.testing.assert_allclose(found, by_hand(qkv, heads), atol=1e-5)


@pytest.mark.parametrize("form", ["auto", "by_head", "pallas"])
def test_every_form_has_the_gradient_of_the_plain_one(form):
  qkv, weight = random_qkv(2, 21, 128), random_qkv(2, 21, 128)[..., :128]

  def gradient(form):
    def total(qkv):
      return (weight * attention.softmax_attention(qkv, 2, form)).sum()

    with (
      jax.default_matmul_precision("highest"),
      pltpu.force_tpu_interpret_mode(),
    ):
      return jax.grad(total)(qkv)

  np.testing.assert_allclose(gradient(form), gradient("xla"), atol=1e-5)


def test_the_kernel_in_bfloat16_is_as_near_as_the_plain_form():
  qkv = random_qkv(1, 300, 128, jnp.bfloat16)
  expected = by_hand(qkv.astype(jnp.float32), 2)
  errors = {}
  with pltpu.force_tpu_interpret_mode():
    for form in ("xla", "pallas"):
      out = attention.softmax_attention(qkv, 2, form).astype(jnp.float32)
      errors[form] = np.abs(out - expected).max()
  assert errors["pallas"] <= 1.5 * errors["xla"] < 0.02


def test_the_kernel_names_sizes_that_it_does_not_take():
  assert tpu_attention.takes(4096, 384, 6)
  assert not tpu_attention.takes(4097, 384, 6)
  assert not tpu_attention.takes(789, 192, 6)
  many = jax.ShapeDtypeStruct((1, 4097, 384), jnp.float32)
  with pytest.raises(ValueError, match="among 4,097 tokens .*'xla'"):
    jax.eval_shape(
      lambda qkv: attention.softmax_attention(qkv, 2, "pallas"), many
    )
  with pytest.raises(ValueError, match="3 heads of 16 channels .*'xla'"):
    attention.softmax_attention(random_qkv(1, 5, 48), 3, "pallas")


def test_auto_takes_the_form_of_the_platform_that_is_lowered_for():
  qkv = random_qkv(1, 20, 128)

  def text(platform):
    traced = jax.jit(lambda qkv: attention.softmax_attention(qkv, 2)).trace(qkv)
    return traced.lower(lowering_platforms=(platform,)).as_text()

  assert "while" in text("cpu") and "while" not in text("cuda")


def test_a_mesh_and_exports_decide_the_platform():
  mesh = sharding.make_mesh()
  with placement.on_mesh(mesh):
    assert placement.platform() == "cpu"
    with placement.on_any_device():
      assert placement.platform() is None


@pytest.mark.parametrize("form", ["auto", "pallas"])
def test_every_device_computes_its_own_images(form):
  """Neither a loop nor a kernel makes the devices exchange images."""
  mesh = sharding.make_mesh()
  assert mesh.size == int(os.environ.get("DEVICES_EXPECTED", mesh.size))
  qkv = jax.device_put(
    random_qkv(2 * mesh.size, 9, 128), sharding.batch_sharding(mesh)
  )

  @jax.jit
  @placement.on_mesh(mesh)
  def attend(qkv):
    return attention.softmax_attention(qkv, 4, form)

  with pltpu.force_tpu_interpret_mode():
    compiled = attend.lower(qkv).compile()
    text = compiled.as_text()
    out = attend(qkv)
  for collective in ("all-gather", "all-reduce", "all-to-all", "permute"):
    assert collective not in text
  assert out.sharding.is_equivalent_to(qkv.sharding, 3)
  np.testing.assert_allclose(out, by_hand(qkv, 4), atol=1e-5)


@pytest.mark.slow
def test_so_do_eight_devices():
  test = f"{__file__}::{test_every_device_computes_its_own_images.__name__}"
  eight = os.environ | {"JAX_NUM_CPU_DEVICES": "8", "DEVICES_EXPECTED": "8"}
  subprocess.run(
    [sys.executable, "-m", "pytest", "-q", test], env=eight, check=True
  )
