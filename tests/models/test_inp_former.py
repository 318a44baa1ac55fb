"""INP-Former: shapes, start values, the decoder's traps, symmetries."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from inp_former_jax.inference import scoring
from inp_former_jax.models import blocks, vit
from inp_former_jax.models import inp_former as model_lib
from inp_former_jax.models.inp_former import INPFormer
from inp_former_jax.training import losses
from inp_former_jax.weights import files
from tests.conftest import GOLDENS
from weights_conversion.inp_former_names import load_model

TINY = vit.VARIANTS["nano"]
SHORT = vit.Variant(width=48, depth=2, num_heads=3, target_blocks=(0, 1))
WIDTH, HEADS = 12, 3


@pytest.fixture(autouse=True)
def highest_precision():
  with jax.default_matmul_precision("highest"):
    yield


@pytest.fixture(scope="module")
def arrays():
  return files.read_arrays(GOLDENS / "tiny_reg4_params.npz")


@pytest.fixture
def model(arrays) -> INPFormer:
  """A model whose layers all matter, unlike one at its start values."""
  return load_model(arrays, "goldens")


@functools.cache
def start_model(use_inps=True, dtype=jnp.float32) -> INPFormer:
  """A short model at its start values."""
  options = {"use_inps": use_inps, "dtype": dtype}
  return INPFormer(SHORT, 4, rngs=nnx.Rngs(0), **options)


@nnx.jit
def forward(model, images):
  return model(images)


def random_images(batch=2, seed=0) -> jax.Array:
  rng = np.random.default_rng(seed)
  return jnp.asarray(rng.normal(size=(batch, 42, 56, 3)), jnp.float32)


def guided_block(seed=0) -> blocks.GuidedBlock:
  """A small decoder block, all of its values random."""
  block = blocks.GuidedBlock(WIDTH, HEADS, dtype=jnp.float32, rngs=nnx.Rngs(0))
  rng = np.random.default_rng(seed)
  for _, leaf in nnx.to_flat_state(nnx.state(block)):
    leaf.set_value(jnp.asarray(rng.normal(0, 0.5, leaf.get_value().shape), "f"))
  return block


def random_tokens(tokens, seed) -> jax.Array:
  rng = np.random.default_rng(seed)
  return jnp.asarray(rng.normal(size=(2, tokens, WIDTH)), jnp.float32)


def guided_attention() -> blocks.GuidedAttention:
  """Queries, keys, values and output are the inputs themselves; one head."""
  attention = blocks.GuidedAttention(
    WIDTH, 1, dtype=jnp.float32, rngs=nnx.Rngs(0)
  )
  eye = jnp.eye(WIDTH)
  attention.q.kernel[...] = attention.proj.kernel[...] = eye
  attention.kv.kernel[...] = jnp.concatenate([eye, eye], axis=1)
  return attention


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_output_shapes_and_dtypes(dtype):
  def run(images):
    return INPFormer(TINY, 4, dtype=dtype, rngs=nnx.Rngs(0))(images)

  images = jax.ShapeDtypeStruct((2, 42, 56, 3), jnp.float32)
  output = jax.eval_shape(run, images)
  groups = output.encoder_groups + output.decoder_groups
  assert [g.shape for g in groups] == [(2, 12, 48)] * 4
  assert output.inps.shape == (2, 6, 48)
  assert output.inp_distance.shape == (2, 12)
  assert output.extractor_attention.shape == (2, 3, 6, 12)
  # Losses and scores are computed in float32 whatever the compute dtype.
  for array in (*groups, output.inps, output.inp_distance):
    assert array.dtype == jnp.float32
  assert output.extractor_attention.dtype == dtype


def test_bfloat16_stays_near_float32_and_keeps_float32_parameters():
  for leaf in jax.tree.leaves(nnx.state(start_model(dtype=jnp.bfloat16))):
    assert leaf.dtype == jnp.float32
  low, high = (
    forward(start_model(dtype=dtype), random_images())
    for dtype in (jnp.bfloat16, jnp.float32)
  )
  for a, b in zip(
    low.encoder_groups + low.decoder_groups,
    high.encoder_groups + high.decoder_groups,
    strict=True,
  ):
    # 2^-9 per rounding, through two encoder and two decoder blocks.
    error = jnp.linalg.norm(a - b) / jnp.linalg.norm(b)
    assert 0 < error < 0.03


def test_trainable_part_starts_as_the_original_does():
  _, trainable, _ = model_lib.split(start_model())
  kernels, seen = [], set()
  for path, variable in nnx.to_flat_state(trainable):
    value, name = np.asarray(variable.get_value()), path[-1]
    seen.add(name)
    if name == "kernel":
      kernels.append(value.ravel())
    elif name == "bias":
      np.testing.assert_array_equal(value, 0)
    elif name in ("scale", "learn_scale"):
      np.testing.assert_array_equal(value, 1)
  assert seen == {"kernel", "bias", "scale", "learn_scale", "prototypes"}
  kernels = np.concatenate(kernels)
  assert kernels.size > 80_000
  assert np.abs(kernels).max() <= 0.03
  assert np.abs(kernels).max() > 0.0295  # cut at three sigma, not at two
  assert kernels.mean() == pytest.approx(0, abs=1e-4)
  # A normal of std 0.01 cut at three sigma has a std of 0.00987.
  assert kernels.std() == pytest.approx(0.00987, rel=0.01)


def test_prototypes_start_standard_normal():
  model = INPFormer(SHORT, 4, num_prototypes=200, rngs=nnx.Rngs(1))
  tokens = np.asarray(model.prototypes[...])
  assert tokens.shape == (1, 200, 48)
  assert tokens.mean() == pytest.approx(0, abs=0.05)
  assert tokens.std() == pytest.approx(1, rel=0.05)
  assert np.abs(tokens).max() > 2.5


def test_decoder_block_has_no_residual_around_the_attention():
  """With values and output bias zero, nothing of x may come through."""
  block = guided_block()
  a, b, inps = random_tokens(5, 1), random_tokens(5, 2), random_tokens(4, 3)
  assert jnp.abs(block(a, inps) - block(b, inps)).max() > 0.1
  kv = block.attn.kv
  kv.kernel[...] = kv.kernel[...].at[:, WIDTH:].set(0)
  kv.bias[...] = kv.bias[...].at[WIDTH:].set(0)
  block.attn.proj.bias[...] = jnp.zeros(WIDTH)
  np.testing.assert_array_equal(block(a, inps), block(b, inps))
  # What is left is the MLP of a zero vector, with its own residual.
  expected = block.mlp(block.norm2(jnp.zeros((2, 5, WIDTH))))
  np.testing.assert_allclose(block(a, inps), expected, atol=1e-6)


def test_decoder_block_has_a_residual_around_the_mlp():
  block = guided_block()
  block.mlp.fc2.kernel[...] = jnp.zeros((4 * WIDTH, WIDTH))
  block.mlp.fc2.bias[...] = jnp.zeros(WIDTH)
  x, inps = random_tokens(5, 1), random_tokens(4, 3)
  expected = block.attn(block.norm1(x), block.norm1(inps))
  np.testing.assert_allclose(block(x, inps), expected, atol=1e-6)


def test_guided_attention_is_the_relu_of_the_cosine():
  attention = guided_attention()
  x, inps = random_tokens(5, 1), random_tokens(4, 2)
  q, k = (np.asarray(a, np.float64) for a in (x, inps))
  lengths = [np.linalg.norm(a, axis=-1) for a in (q, k)]
  cosine = q @ k.swapaxes(1, 2)
  cosine /= lengths[0][:, :, None] * lengths[1][:, None]
  assert (cosine < 0).any() and (cosine > 0).any()
  for scale in (1.0, 2.5, -1.0):
    attention.learn_scale[...] = jnp.full(1, scale)
    expected = np.maximum(scale * cosine, 0) @ k
    np.testing.assert_allclose(attention(x, inps), expected, atol=1e-5)


def test_inps_of_negative_similarity_contribute_nothing():
  attention = guided_attention()
  inp = random_tokens(1, 1)
  np.testing.assert_array_equal(attention(-inp, inp), jnp.zeros_like(inp))
  np.testing.assert_allclose(attention(inp, inp), inp, atol=1e-5)


def test_guided_attention_is_no_softmax_and_sees_no_length_of_a_query():
  attention = guided_attention()
  x, inps = random_tokens(5, 1), random_tokens(4, 2)
  once = attention(x, inps)
  twice = attention(x, jnp.concatenate([inps, inps], axis=1))
  np.testing.assert_allclose(twice, 2 * once, atol=1e-5)
  np.testing.assert_allclose(attention(7 * x, inps), once, atol=1e-5)


def test_every_head_has_its_own_scale():
  attention = blocks.GuidedAttention(
    WIDTH, HEADS, dtype=jnp.float32, rngs=nnx.Rngs(0)
  )
  attention.proj.kernel[...] = jnp.eye(WIDTH)
  x, inps = random_tokens(5, 1), random_tokens(4, 2)
  before = attention(x, inps)
  attention.learn_scale[...] = jnp.asarray([1.0, 3.0, 0.0])
  after = attention(x, inps)
  factor = np.repeat([1.0, 3.0, 0.0], WIDTH // HEADS)
  np.testing.assert_allclose(after, before * factor, atol=1e-6)


def test_zero_queries_give_finite_values_and_gradients():
  attention = guided_attention()
  x, inps = jnp.zeros((2, 3, WIDTH)), random_tokens(4, 2)
  loss = lambda x: jnp.sum(attention(x, inps) ** 2)  # noqa: E731
  value, gradient = jax.value_and_grad(loss)(x)
  assert value == 0
  assert jnp.isfinite(gradient).all()


def test_groups_are_means_and_the_decoders_are_reversed(model):
  images = random_images()
  output = forward(model, images)

  @nnx.jit
  def run_blocks(model, images):
    features = model.encoder.target_features(images)
    fused = sum(features) / 8
    return features, model.decode(fused, model.extract_inps(fused)[0])

  features, decoded = run_blocks(model, images)
  assert len(features) == len(decoded) == 8
  # The last four decoder blocks match the first encoder group.
  for group, expected in (
    (output.encoder_groups[0], sum(features[:4]) / 4),
    (output.encoder_groups[1], sum(features[4:]) / 4),
    (output.decoder_groups[0], sum(decoded[4:]) / 4),
    (output.decoder_groups[1], sum(decoded[:4]) / 4),
  ):
    np.testing.assert_allclose(group, expected, rtol=1e-4, atol=1e-4)
  gap = jnp.abs(output.decoder_groups[0] - output.decoder_groups[1]).max()
  assert gap > 0.01  # the two groups are not alike


def test_split_parts_encoder_from_the_rest_and_merges_back(model):
  graphdef, trainable, frozen = model_lib.split(model)
  paths = [{p[0] for p, _ in nnx.to_flat_state(s)} for s in (trainable, frozen)]
  assert paths[0] == {"bottleneck", "prototypes", "extractor", "decoder"}
  assert paths[1] == {"encoder"}
  count = sum(len(jax.tree.leaves(s)) for s in (trainable, frozen))
  assert count == len(jax.tree.leaves(nnx.state(model)))
  images = random_images()
  again = forward(nnx.merge(graphdef, trainable, frozen), images)
  jax.tree.map(np.testing.assert_array_equal, again, forward(model, images))


def test_gradient_reaches_every_trainable_array(model):
  graphdef, trainable, frozen = model_lib.split(model)

  def loss(trainable):
    output = nnx.merge(graphdef, trainable, frozen)(random_images())
    return losses.total_loss(output)[0]

  gradients = jax.jit(jax.grad(loss))(trainable)
  for path, variable in nnx.to_flat_state(gradients):
    assert jnp.abs(variable.get_value()).max() > 0, path


def test_without_inps_the_decoder_is_plain_and_predicts():
  model = start_model(use_inps=False)
  assert model.prototypes is None and model.extractor is None
  for block in model.decoder:
    assert isinstance(block, model_lib.SelfAttentionBlock)
  output = forward(model, random_images())
  assert output.inps is None
  assert output.inp_distance is None
  assert output.extractor_attention is None
  distance = scoring.group_distance(
    output.encoder_groups, output.decoder_groups
  )
  maps = scoring.anomaly_map(distance, (3, 4), (42, 56), 32)
  assert maps.shape == (2, 32, 32) and jnp.isfinite(maps).all()
  assert jnp.isfinite(scoring.image_score(maps)).all()
  _, parts = losses.total_loss(output)
  assert set(parts) == {"loss", "soft_mining_loss"}
  _, trainable, _ = model_lib.split(model)
  assert set(trainable) == {"bottleneck", "decoder"}


def test_extractor_attention_rows_sum_to_one(model):
  attention = forward(model, random_images()).extractor_attention
  assert attention.min() >= 0
  np.testing.assert_allclose(attention.sum(axis=-1), 1, atol=1e-5)


def test_order_of_prototypes_orders_the_inps_and_nothing_else(model):
  images = random_images()
  before = forward(model, images)
  order = np.array([3, 0, 5, 1, 4, 2])
  model.prototypes[...] = model.prototypes[...][:, order]
  after = forward(model, images)
  assert jnp.abs(after.inps - before.inps).max() > 0.1
  np.testing.assert_allclose(after.inps, before.inps[:, order], atol=1e-5)
  np.testing.assert_allclose(
    after.extractor_attention,
    before.extractor_attention[:, :, order],
    atol=1e-6,
  )
  np.testing.assert_allclose(after.inp_distance, before.inp_distance, atol=1e-6)
  for a, b in zip(after.decoder_groups, before.decoder_groups, strict=True):
    np.testing.assert_allclose(a, b, atol=1e-4 * jnp.abs(b).max())


def test_images_of_a_batch_do_not_see_each_other(model):
  images = random_images()
  before = forward(model, images)
  after = forward(model, images.at[1].set(random_images(1, seed=7)[0]))
  for a, b in zip(jax.tree.leaves(after), jax.tree.leaves(before), strict=True):
    np.testing.assert_array_equal(a[0], b[0])
    assert jnp.abs(a[1] - b[1]).max() > 1e-3


def test_coherence_reaches_prototypes_and_extractor_alone(model):
  graphdef, trainable, frozen = model_lib.split(model)
  fused = jax.random.normal(jax.random.key(0), (2, 12, 48))

  def loss(trainable):
    inps, _ = nnx.merge(graphdef, trainable, frozen).extract_inps(fused)
    return losses.coherence_loss(model_lib.inp_distance(fused, inps))

  for path, variable in nnx.to_flat_state(jax.jit(jax.grad(loss))(trainable)):
    largest = jnp.abs(variable.get_value()).max()
    assert (largest > 0) == (path[0] in ("prototypes", "extractor")), path
