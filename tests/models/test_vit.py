"""Encoder: names, tokens, position table, blocks, precision."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy.special import erf

from inp_former_jax.models import vit

SHORT = vit.Variant(width=12, depth=3, num_heads=3, target_blocks=(0, 1))


@pytest.fixture(autouse=True)
def highest_precision():
  with jax.default_matmul_precision("highest"):
    yield


def build(variant=SHORT, num_registers=0, **kwargs) -> vit.VisionTransformer:
  return nnx.clone(_build(variant, num_registers, **kwargs))


@functools.cache
def _build(variant, num_registers, **kwargs):
  return vit.VisionTransformer(
    variant, num_registers, rngs=nnx.Rngs(0), **kwargs
  )


@nnx.jit
def embed(model, images):
  return model.embed(images)


@nnx.jit
def run(model, images):
  """Outputs of all blocks, and the target features."""
  return model(images), model.target_features(images)


def random_images(height=42, width=42, batch=2, seed=0) -> jax.Array:
  rng = np.random.default_rng(seed)
  return jnp.asarray(rng.normal(size=(batch, height, width, 3)), jnp.float32)


def test_published_sizes():
  sizes = {
    name: (v.width, v.depth, v.num_heads, v.target_blocks)
    for name, v in vit.VARIANTS.items()
  }
  middle = tuple(range(2, 10))
  assert sizes["small"] == (384, 12, 6, middle)
  assert sizes["base"] == (768, 12, 12, middle)
  assert sizes["large"] == (1024, 24, 16, tuple(range(4, 19, 2)))


@pytest.mark.parametrize("height, width", [(43, 42), (42, 50), (13, 13)])
def test_sizes_that_cannot_be_cut_into_patches_are_refused(height, width):
  with pytest.raises(ValueError, match=f"{height}x{width}.* multiples of 14"):
    build().embed(random_images(height, width))


@pytest.mark.parametrize("num_registers", [0, 4])
def test_image_need_not_be_square(num_registers):
  model = build(num_registers=num_registers)
  images = jax.ShapeDtypeStruct((2, 28, 70, 3), jnp.float32)
  tokens, features = jax.eval_shape(
    lambda images: (model.embed(images), model.target_features(images)), images
  )
  assert tokens.shape == (2, 1 + num_registers + 2 * 5, 12)
  assert [f.shape for f in features] == [(2, 2 * 5, 12)] * 2


def test_patches_are_taken_row_by_row():
  model = build()
  images = random_images(28, 42)
  before = embed(model, images)
  # Row 1, column 2 of 2 x 3 patches: the last but none, after one class token.
  changed = images.at[:, 14:, 28:].add(1.0)
  moved = jnp.abs(embed(model, changed) - before).max(axis=(0, 2)) > 1e-4
  np.testing.assert_array_equal(moved, [False] * 6 + [True])


def test_patch_embedding_is_a_convolution():
  model = build()
  model.pos_embed[...] = jnp.zeros_like(model.pos_embed[...])
  images = random_images(28, 42)
  kernel = model.patch_embed.kernel[...].reshape(14, 14, 3, -1)
  expected = jax.lax.conv_general_dilated(
    images,
    kernel,
    (14, 14),
    "VALID",
    dimension_numbers=("NHWC", "HWIO", "NHWC"),
  )
  tokens = embed(model, images)[:, 1:].reshape(2, 2, 3, -1)
  np.testing.assert_allclose(tokens, expected, atol=1e-5)


def test_registers_carry_no_position():
  model = build(num_registers=4)
  images = random_images()
  before = embed(model, images)
  model.pos_embed[...] = model.pos_embed[...] + 1.0
  after = embed(model, images)
  registers = np.s_[:, 1:5]
  np.testing.assert_array_equal(after[registers], before[registers])
  expected = jnp.broadcast_to(model.register_tokens[...], (2, 4, 12))
  np.testing.assert_array_equal(after[registers], expected)
  # Class token and patches do.
  np.testing.assert_allclose(after[:, 0], before[:, 0] + 1, atol=1e-5)
  np.testing.assert_allclose(after[:, 5:], before[:, 5:] + 1, atol=1e-5)


def test_class_and_register_tokens_are_dropped_from_the_features():
  for num_registers in (0, 4):
    model = build(num_registers=num_registers)
    images = random_images()
    outputs, features = run(model, images)
    assert len(outputs) == len(features) == 2
    for whole, patches in zip(outputs, features, strict=True):
      assert whole.shape == (2, 1 + num_registers + 9, 12)
      np.testing.assert_array_equal(patches, whole[:, 1 + num_registers :])


def test_registers_take_part_in_the_attention():
  model = build(num_registers=4)
  images = random_images()
  before = run(model, images)[1][0]
  model.register_tokens[...] = 10.0 * model.register_tokens[...]
  assert jnp.abs(run(model, images)[1][0] - before).max() > 1e-6


def test_position_table_is_unchanged_at_its_own_grid():
  table = jnp.asarray(np.random.default_rng(0).normal(size=(1, 37 * 37, 4)))
  assert vit.resize_position_table(table, 37, 37) is table


def test_resize_keeps_a_constant_table():
  # Weights of every output sum to 1, at the clamped borders too.
  table = jnp.full((1, 37 * 37, 3), 0.25)
  for height, width in ((28, 28), (16, 5), (50, 37), (1, 1)):
    resized = vit.resize_position_table(table, height, width)
    assert resized.shape == (1, height * width, 3)
    np.testing.assert_allclose(resized, 0.25, atol=1e-6)


def naive_bicubic(table, height, width):
  """Pixel by pixel: cubic convolution of a = -0.75, borders repeated."""

  def kernel(x):
    x = abs(x)
    if x <= 1:
      return 1.25 * x**3 - 2.25 * x**2 + 1
    return -0.75 * (x**3 - 5 * x**2 + 8 * x - 4) if x < 2 else 0.0

  result = np.zeros((height, width))
  for i in range(height):
    y = (i + 0.5) * 37 / (height + 0.1) - 0.5
    for j in range(width):
      x = (j + 0.5) * 37 / (width + 0.1) - 0.5
      for m in range(int(np.floor(y)) - 1, int(np.floor(y)) + 3):
        for n in range(int(np.floor(x)) - 1, int(np.floor(x)) + 3):
          value = table[min(max(m, 0), 36), min(max(n, 0), 36)]
          result[i, j] += kernel(y - m) * kernel(x - n) * value
  return result


@pytest.mark.parametrize("height, width", [(16, 16), (4, 9), (45, 5)])
def test_resize_equals_a_loop_over_pixels(height, width):
  table = np.random.default_rng(0).normal(size=(37, 37))
  resized = vit.resize_position_table(
    jnp.asarray(table.reshape(1, -1, 1), jnp.float32), height, width
  )
  expected = naive_bicubic(table, height, width)
  # The source coordinate is float32: 37 * 2^-24 times a slope of about 2.
  np.testing.assert_allclose(
    resized.reshape(height, width), expected, atol=2e-5
  )


def test_resize_treats_rows_and_columns_alike():
  rng = np.random.default_rng(0)
  table = jnp.asarray(rng.normal(size=(37, 37, 4)), jnp.float32)
  wide = vit.resize_position_table(table.reshape(1, -1, 4), 3, 5)
  turned = table.transpose(1, 0, 2).reshape(1, -1, 4)
  tall = vit.resize_position_table(turned, 5, 3)
  np.testing.assert_allclose(
    wide.reshape(3, 5, 4), tall.reshape(5, 3, 4).transpose(1, 0, 2), atol=1e-6
  )


@pytest.mark.parametrize("antialias", [False, True])
def test_resize_is_not_jax_image_resize(antialias):
  """A tidy-up to jax.image.resize (a = -0.5, other scale) is off by this."""
  table = jnp.asarray(np.random.default_rng(0).normal(size=(37, 37, 4)))
  ours = vit.resize_position_table(table.reshape(1, -1, 4), 28, 28)
  theirs = jax.image.resize(table, (28, 28, 4), "cubic", antialias=antialias)
  assert jnp.abs(ours.reshape(28, 28, 4) - theirs).max() > 0.05


@pytest.mark.parametrize(
  "name, count", [("small", 10), ("base", 10), ("large", 19)]
)
@pytest.mark.parametrize("num_registers", [0, 4])
def test_published_variants_by_shape(name, count, num_registers):
  """Blocks up to the last target only; eight outputs at 392 pixels."""
  variant = vit.VARIANTS[name]

  def forward(images):
    model = build(variant, num_registers)
    assert len(model.blocks) == count
    return model.target_features(images), nnx.state(model)

  images = jax.ShapeDtypeStruct((2, 392, 392, 3), jnp.float32)
  features, state = jax.eval_shape(forward, images)
  assert [f.shape for f in features] == [(2, 28 * 28, variant.width)] * 8
  assert all(f.dtype == jnp.float32 for f in features)
  assert state["pos_embed"].get_value().shape == (1, 1370, variant.width)
  assert ("register_tokens" in state) == bool(num_registers)


def test_number_of_blocks_can_be_asked_for():
  assert len(build().blocks) == 2  # of a depth of 3
  model = build(num_blocks=3)
  assert len(run(model, random_images())[0]) == 3


def test_later_blocks_do_not_touch_the_features():
  whole, cut = build(num_blocks=3), build()
  images = random_images()
  for a, b in zip(run(whole, images)[1], run(cut, images)[1], strict=True):
    np.testing.assert_array_equal(a, b)


def test_layer_scale_of_zero_leaves_the_tokens_alone():
  model = build()
  for block in model.blocks:
    block.ls1[...] = block.ls2[...] = jnp.zeros(12)
  images = random_images()
  tokens = embed(model, images)
  np.testing.assert_array_equal(run(model, images)[0][-1], tokens)


def test_block_equals_a_naive_one():
  """In numpy, head by head: x + g1 attn(LN(x)), x + g2 mlp(LN(x))."""
  model = build()
  block = model.blocks[0]
  rng = np.random.default_rng(0)
  for _, leaf in nnx.to_flat_state(nnx.state(block)):
    leaf.set_value(jnp.asarray(rng.normal(0, 0.4, leaf.get_value().shape), "f"))
  x = rng.normal(size=(1, 5, 12))

  def norm(layer, x):
    centred = x - x.mean(-1, keepdims=True)
    x = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6)
    return x * np.asarray(layer.scale[...]) + np.asarray(layer.bias[...])

  def linear(layer, x):
    return x @ np.asarray(layer.kernel[...]) + np.asarray(layer.bias[...])

  qkv = linear(block.attn.qkv, norm(block.norm1, x))
  q, k, v = np.split(qkv, 3, axis=-1)
  heads = []
  for h in range(3):
    part = np.s_[0, :, 4 * h : 4 * h + 4]
    logits = np.exp(q[part] @ k[part].T / np.sqrt(4))
    heads.append(logits / logits.sum(-1, keepdims=True) @ v[part])
  attention = linear(block.attn.proj, np.concatenate(heads, -1)[None])
  y = x + np.asarray(block.ls1[...]) * attention
  hidden = linear(block.mlp.fc1, norm(block.norm2, y))
  gelu = 0.5 * hidden * (1 + erf(hidden / np.sqrt(2)))
  y = y + np.asarray(block.ls2[...]) * linear(block.mlp.fc2, gelu)
  np.testing.assert_allclose(block(jnp.asarray(x, "f")), y, atol=1e-5)


def test_images_of_a_batch_do_not_see_each_other():
  model = build(num_registers=4)
  images = random_images()
  before = run(model, images)[1][-1]
  after = run(model, images.at[1].add(1.0))[1][-1]
  np.testing.assert_array_equal(after[0], before[0])
  assert jnp.abs(after[1] - before[1]).max() > 1e-4


def test_bfloat16_compute_keeps_float32_parameters_and_stays_near():
  single = build(num_registers=4)
  half = build(num_registers=4, dtype=jnp.bfloat16)
  for leaf in jax.tree.leaves(nnx.state(half)):
    assert leaf.dtype == jnp.float32
  images = random_images()
  for a, b in zip(run(half, images)[1], run(single, images)[1], strict=True):
    assert a.dtype == jnp.bfloat16
    # 2^-9 per rounding; two blocks of two residuals add up a few of them.
    error = jnp.linalg.norm(a.astype("f") - b) / jnp.linalg.norm(b)
    assert 0 < error < 0.02
