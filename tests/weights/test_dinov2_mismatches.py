"""What does not fit an encoder is named, all of it together."""

import numpy as np
import pytest

from inp_former_jax.weights import dinov2_rules, files, rules
from tests.conftest import GOLDENS
from tests.weights.test_dinov2_rules import hugging_face, load, original


def convert_changed(change, num_registers=4):
  arrays = hugging_face(original(num_registers))
  change(arrays)
  with pytest.raises(rules.ConversionError) as error:
    load(arrays, num_registers)
  with pytest.raises(rules.ConversionError):
    dinov2_rules.facebookresearch_arrays(arrays, "FILE")
  return str(error.value)


LAYER = "encoder.layer.3.attention.attention."


def test_missing_part_is_named():
  def change(arrays):
    del arrays[LAYER + "key.weight"]

  message = convert_changed(change)
  assert "1 mismatch:" in message
  assert "blocks/3/attn/qkv/kernel[key]: missing" in message


def test_missing_attention_is_named():
  def change(arrays):
    for part in ("query", "key", "value"):
      del arrays[LAYER + f"{part}.weight"]

  message = convert_changed(change)
  assert "1 mismatch:" in message
  assert "blocks/3/attn/qkv/kernel: missing" in message


def test_part_of_another_shape_is_named():
  def change(arrays):
    arrays[LAYER + "value.weight"] = np.zeros((47, 48), np.float32)
    arrays[LAYER + "query.bias"] = np.zeros((), np.float32)

  message = convert_changed(change)
  assert (
    f"{LAYER}value.weight: shape (48, 47) as "
    "blocks/3/attn/qkv/kernel[value], expected (48, 48)"
  ) in message
  assert f"{LAYER}query.bias: shape ()" in message


def test_all_mismatches_are_named_together():
  def change(arrays):
    arrays[LAYER + "keys.weight"] = arrays.pop(LAYER + "key.weight")
    arrays["embeddings.register_token"] = arrays.pop(
      "embeddings.register_tokens"
    )
    arrays["dinov2.embeddings.cls_token"] = arrays["embeddings.cls_token"]
    arrays["encoder.layer.1.mlp.fc1.bias"] = np.zeros(7, np.float32)
    del arrays["encoder.layer.2.norm1.weight"]

  message = convert_changed(change)
  for line in (
    f"{LAYER}keys.weight: unknown key",
    "blocks/3/attn/qkv/kernel[key]: missing",
    "embeddings.register_token: unknown key",
    "register_tokens: missing (nearest: embeddings.register_token)",
    "both go to cls_token",
    "encoder.layer.1.mlp.fc1.bias: shape (7,)",
    "blocks/2/norm1/scale: missing",
  ):
    assert line in message
  assert message.startswith("FILE does not fit")


def test_both_spellings_of_one_part_are_refused():
  def change(arrays):
    new = "encoder.layer.3.attention.k_proj.weight"
    arrays[new] = arrays.pop(LAYER + "key.weight")

  assert "blocks/3/attn/qkv/kernel" in convert_changed(change)


@pytest.mark.parametrize(
  "key",
  [
    "embeddings.cls_token",
    LAYER + "value.bias",
    "encoder.layer.11.mlp.fc2.weight",  # never run
    "embeddings.mask_token",
    "layernorm.bias",
  ],
)
@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_values_that_are_not_finite_are_named(key, value):
  def change(arrays):
    arrays[key] = arrays[key].astype(np.float64)
    arrays[key].flat[-1] = value

  message = convert_changed(change)
  assert f"{key}: has NaN or infinite values" in message
  assert "1 mismatch:" in message


def test_other_models_are_refused():
  with pytest.raises(ValueError, match="FILE holds no DINOv2 .* no array"):
    dinov2_rules.rules_for([], 10, "FILE")
  with pytest.raises(ValueError) as error:
    dinov2_rules.rules_for(["conv1.weight", "fc.bias"], 10, "FILE")
  for word in ("conv1.weight, fc.bias", "cls_token", "embeddings.cls_token"):
    assert word in str(error.value)
  whole = files.read_arrays(GOLDENS / "tiny_reg4_params.npz")
  with pytest.raises(ValueError, match="weights_conversion.inp_former"):
    dinov2_rules.rules_for(whole, 10, "FILE")
