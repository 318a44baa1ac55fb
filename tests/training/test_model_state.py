"""A model on a mesh: its encoder placed, the rest initialised."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from inp_former_jax import sharding
from inp_former_jax.models import inp_former
from inp_former_jax.training import model_state
from inp_former_jax.training.model_state import ModelSettings
from inp_former_jax.weights import dinov2_rules, files, pretrained

FEMTO = ModelSettings("dinov2_vit_femto_14")


def create(settings, encoder_weights=pretrained.RANDOM, seed=1):
  return model_state.create(
    settings,
    sharding.make_mesh(),
    encoder_weights=encoder_weights,
    seed=seed,
  )


def same(a, b) -> bool:
  return jax.tree.all(jax.tree.map(np.array_equal, a, b))


def test_the_encoder_is_loaded_and_placed_on_the_mesh(tmp_path):
  encoder = dinov2_rules.named_arrays(create(FEMTO).frozen["encoder"])
  encoder = {name: value + 1 for name, value in encoder.items()}
  files.write_arrays(tmp_path / "encoder.npz", encoder)
  state = create(FEMTO, str(tmp_path / "encoder.npz"))
  assert state.encoder_sha256 == files.file_sha256(tmp_path / "encoder.npz")
  leaves = jax.tree.leaves(state.frozen)
  assert all(x.sharding.mesh == sharding.make_mesh() for x in leaves)
  token = state.frozen["encoder"]["cls_token"].get_value()
  np.testing.assert_array_equal(token, encoder["cls_token"])


def test_the_seed_decides_the_initial_values():
  first, again, other = create(FEMTO), create(FEMTO), create(FEMTO, seed=2)
  assert same(first.initial_trainable(), again.initial_trainable())
  assert same(first.frozen, again.frozen)
  assert not same(first.initial_trainable(), other.initial_trainable())
  assert not same(first.frozen, other.frozen)
  # The parts are those of a model that is built whole.
  _, trainable, frozen = jax.jit(lambda: inp_former.split(FEMTO.build(1)))()
  for ours, whole in (
    (first.initial_trainable(), trainable),
    (first.frozen, frozen),
  ):
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), ours, whole
    )


def test_other_settings_are_another_model():
  fewer = ModelSettings(FEMTO.encoder, num_prototypes=3)
  shape = create(fewer).abstract_trainable["prototypes"].get_value().shape
  assert shape == (1, 3, 24)


def test_the_encoder_is_cast_once_instead_of_in_every_step(tmp_path):
  encoder = dinov2_rules.named_arrays(create(FEMTO).frozen["encoder"])
  weights = str(tmp_path / "encoder.npz")
  files.write_arrays(tmp_path / "encoder.npz", encoder)
  half = dataclasses.replace(FEMTO, dtype="bfloat16")
  images = jax.random.normal(jax.random.key(0), (2, 42, 42, 3))
  for source in (weights, pretrained.RANDOM):
    wide, narrow = create(FEMTO, source).frozen, create(half, source)
    kernels = [
      leaf.get_value().dtype
      for path, leaf in nnx.to_flat_state(narrow.frozen)
      if path[-1] == "kernel"
    ]
    assert kernels and all(dtype == jnp.bfloat16 for dtype in kernels)
    trainable = narrow.initial_trainable()
    narrow_model, wide_model = (
      nnx.merge(narrow.graphdef, trainable, frozen)
      for frozen in (narrow.frozen, wide)
    )
    assert same(narrow_model.encode(images), wide_model.encode(images))


def test_an_unknown_attention_is_named():
  message = "`attention` is 'flash'; expected one of auto, xla, by_head"
  with pytest.raises(ValueError, match=message):
    create(dataclasses.replace(FEMTO, attention="flash"))


def test_an_unknown_dtype_is_named():
  message = "`dtype` is 'float8'; expected one of float32, bfloat16"
  with pytest.raises(ValueError, match=message):
    create(ModelSettings(FEMTO.encoder, dtype="float8"))


def test_a_converted_checkpoint_brings_its_encoder(tmp_path):
  own = tmp_path / model_state.CONVERTED_ENCODER
  assert model_state.encoder_source("", tmp_path) == ""
  own.touch()
  assert model_state.encoder_source("", tmp_path) == str(own)
  assert model_state.encoder_source("random", tmp_path) == "random"
