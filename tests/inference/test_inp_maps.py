"""INP maps: those of the forward pass, and what the extractor sums up."""

import dataclasses

import numpy as np
import pytest

from inp_former_jax import sharding
from inp_former_jax.data import transforms
from inp_former_jax.inference import trained
from inp_former_jax.inference.inp_maps import inp_maps
from inp_former_jax.models import inp_former
from inp_former_jax.training import model_state
from inp_former_jax.training.model_state import ModelSettings


@pytest.fixture(scope="module")
def model():
  mesh = sharding.make_mesh()
  settings = ModelSettings(
    encoder="dinov2reg_vit_femto_14", num_prototypes=5, dtype="float32"
  )
  state = model_state.create(settings, mesh, encoder_weights="random", seed=0)
  return trained.from_state(state, state.initial_trainable(), mesh, size=32)


@pytest.fixture(scope="module")
def images():
  return np.random.default_rng(0).integers(0, 256, (3, 28, 42, 3), np.uint8)


def test_maps_are_those_of_the_forward_pass(model, images):
  found = inp_maps(model, images)
  output = model.merged()(transforms.normalise(images))
  assert found.attention.shape == (3, 5, 2, 3)
  attention = np.asarray(output.extractor_attention).mean(axis=1)
  np.testing.assert_allclose(
    found.attention.reshape(3, 5, 6), attention, atol=1e-6
  )
  distance = np.asarray(output.inp_distance)
  np.testing.assert_allclose(found.distance.reshape(3, 6), distance, atol=1e-6)


def test_every_inp_is_shared_out_among_the_patches(model, images):
  attention = inp_maps(model, images).attention
  np.testing.assert_allclose(attention.sum(axis=(2, 3)), 1, atol=1e-6)
  assert attention.min() >= 0


def test_weights_times_values_are_the_extractors_attention(model, images):
  """The weights that are drawn are what the INPs are really summed by."""
  module = model.merged()
  features = module.encoder.target_features(transforms.normalise(images))
  fused = inp_former.mean_features(features)
  _, weights = module.extract_inps(fused)
  block = module.extractor
  context = np.asarray(block.norm1(fused), np.float64)
  kernel, bias = (
    np.asarray(getattr(block.attn.kv, name)[...], np.float64)
    for name in ("kernel", "bias")
  )
  heads = block.attn.num_heads
  values = (context @ kernel + bias).reshape(3, 6, 2, heads, -1)[:, :, 1]
  summed = np.einsum("bhqk,bkhd->bqhd", np.asarray(weights, np.float64), values)
  out = summed.reshape(3, 5, -1) @ np.asarray(block.attn.proj.kernel[...])
  tokens = np.broadcast_to(module.prototypes[...], (3, 5, out.shape[-1]))
  expected, _ = block.attn(block.norm1(tokens), block.norm1(fused))
  bias = np.asarray(block.attn.proj.bias[...])
  np.testing.assert_allclose(out + bias, expected, atol=1e-6)
  drawn = inp_maps(model, images).attention.reshape(3, 5, 6)
  np.testing.assert_allclose(np.asarray(weights).mean(1), drawn, atol=1e-6)


def test_a_model_without_inps_is_refused(model, images):
  without = dataclasses.replace(model.settings, use_inps=False)
  with pytest.raises(ValueError, match="no INPs"):
    inp_maps(dataclasses.replace(model, settings=without), images)
