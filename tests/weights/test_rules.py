"""Conversion tables: every key once, every array of the model reached."""

import re

import jax
import numpy as np
import pytest
from flax import nnx

from inp_former_jax.models import vit
from inp_former_jax.models.inp_former import INPFormer
from inp_former_jax.weights import dinov2_rules, rules
from inp_former_jax.weights.rules import Rule
from tests.conftest import GOLDENS
from weights_conversion import inp_former_names

KINDS = {"reg4": 4, "noreg": 0}


def golden_shapes(kind) -> dict[str, tuple[int, ...]]:
  with np.load(GOLDENS / f"tiny_{kind}_params.npz") as file:
    return {key: file[key].shape for key in file.files}


def published_shapes(variant, num_registers) -> dict[str, tuple[int, ...]]:
  """Keys and shapes of a facebookresearch/dinov2 checkpoint."""
  width = variant.width
  shapes = {
    "cls_token": (1, 1, width),
    "pos_embed": (1, 1 + 37 * 37, width),
    "mask_token": (1, width),
    "patch_embed.proj.weight": (width, 3, 14, 14),
    "patch_embed.proj.bias": (width,),
    "norm.weight": (width,),
    "norm.bias": (width,),
  }
  if num_registers:
    shapes["register_tokens"] = (1, num_registers, width)
  for i in range(variant.depth):
    for name in ("norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias"):
      shapes[f"blocks.{i}.{name}"] = (width,)
    for name in ("ls1", "ls2"):
      shapes[f"blocks.{i}.{name}.gamma"] = (width,)
    for name, out, inputs in (
      ("attn.qkv", 3 * width, width),
      ("attn.proj", width, width),
      ("mlp.fc1", 4 * width, width),
      ("mlp.fc2", width, 4 * width),
    ):
      shapes[f"blocks.{i}.{name}.weight"] = (out, inputs)
      shapes[f"blocks.{i}.{name}.bias"] = (out,)
  return shapes


def model_shapes(make) -> dict[str, tuple[int, ...]]:
  state = nnx.to_flat_state(nnx.state(nnx.eval_shape(make)))
  return {"/".join(map(str, p)): v.get_value().shape for p, v in state}


def converted_shapes(shapes, table) -> dict[str, tuple[int, ...]]:
  """Path -> shape, with no memory; every key must match exactly once."""
  result = {}
  for key, shape in shapes.items():
    (rule,) = [r for r in table if re.fullmatch(r.pattern, key)]
    path = rules.target_path(key, table)
    if path is not None:
      assert path not in result
      empty = np.broadcast_to(np.float32(0), shape)
      result[path] = rule.transform(empty).shape
  return result


@pytest.mark.parametrize("num_registers", [0, 4])
@pytest.mark.parametrize("name", sorted(vit.VARIANTS))
def test_published_encoders_fill_the_model_exactly(name, num_registers):
  variant = vit.VARIANTS[name]
  make = lambda: vit.VisionTransformer(  # noqa: E731
    variant, num_registers, rngs=nnx.Rngs(0)
  )
  expected = model_shapes(make)
  table = dinov2_rules.encoder_rules(variant.target_blocks[-1] + 1)
  shapes = published_shapes(variant, num_registers)
  assert converted_shapes(shapes, table) == expected


@pytest.mark.parametrize("kind", KINDS)
def test_key_list_of_the_tests_is_the_originals(kind):
  original = {
    key.removeprefix("encoder."): shape
    for key, shape in golden_shapes(kind).items()
    if key.startswith("encoder.")
  }
  assert published_shapes(vit.VARIANTS["nano"], KINDS[kind]) == original


@pytest.mark.parametrize("kind", KINDS)
def test_original_checkpoints_fill_the_whole_model_exactly(kind):
  variant = vit.VARIANTS["nano"]
  make = lambda: INPFormer(variant, KINDS[kind], rngs=nnx.Rngs(0))  # noqa: E731
  table = inp_former_names.model_rules(variant.target_blocks[-1] + 1)
  shapes = golden_shapes(kind)
  assert converted_shapes(shapes, table) == model_shapes(make)


def test_later_blocks_are_known_and_not_needed():
  table = dinov2_rules.encoder_rules(10)
  assert rules.target_path("blocks.9.ls1.gamma", table) == "blocks/9/ls1"
  for key in ("blocks.10.ls1.gamma", "blocks.11.mlp.fc1.bias", "norm.bias"):
    assert rules.target_path(key, table) is None
  # Block 1 is not mistaken for the beginning of block 10.
  two = dinov2_rules.encoder_rules(2)
  assert rules.target_path("blocks.1.ls1.gamma", two) == "blocks/1/ls1"
  assert rules.target_path("blocks.10.ls1.gamma", two) is None


TABLE = [Rule("w", "kernel", rules.transpose), Rule("skip", None)]


def convert(arrays, table=TABLE, expected=None):
  expected = {"kernel": (2, 3)} if expected is None else expected
  return rules.convert(arrays, table, expected, "file.npz")


def test_convert_transforms_and_skips():
  weight = np.arange(6.0).reshape(3, 2)
  result = convert({"w": weight, "skip": np.zeros(1)})
  assert set(result) == {"kernel"}
  assert result["kernel"].dtype == np.float32
  assert result["kernel"].flags.c_contiguous
  np.testing.assert_array_equal(result["kernel"], weight.T)


def test_convert_names_file_and_every_problem_at_once():
  arrays = {
    "w": np.full((2, 2), np.nan),
    "other": np.zeros(1),
    "twice": np.zeros(1),
  }
  table = [*TABLE, Rule("twice", "bias"), Rule("tw.*", "bias")]
  expected = {"kernel": (2, 3), "bias": (1,), "scale": (1,)}
  with pytest.raises(rules.ConversionError) as error:
    convert(arrays, table, expected)
  message = str(error.value)
  for part in (
    "file.npz",
    "6 mismatches",
    "w: has NaN",
    "w: shape (2, 2) as kernel, expected (2, 3)",
    "other: unknown key",
    "twice: several rules match (twice, tw.*)",
    "bias: missing",
    "scale: missing",
  ):
    assert part in message


def test_two_keys_for_one_array_are_refused():
  table = [Rule("a|b", "kernel")]
  arrays = {"a": np.zeros((2, 3)), "b": np.zeros((2, 3))}
  with pytest.raises(rules.ConversionError, match="b and a both go to kernel"):
    convert(arrays, table)


def test_arrays_the_model_lacks_are_refused():
  table = [*TABLE, Rule("extra", "bias")]
  arrays = {"w": np.zeros((3, 2)), "extra": np.zeros(3)}
  with pytest.raises(
    rules.ConversionError, match="extra: the model has no bias"
  ):
    convert(arrays, table)


def test_missing_array_hints_at_the_nearest_key():
  table = [Rule("blocks_0", "block/0/kernel")]
  with pytest.raises(rules.ConversionError, match=r"nearest: blocks_0"):
    convert({"blocks_0": np.zeros(1)}, table, {"block/1/kernel": (1,)})


def test_patterns_match_whole_keys_only():
  for key in ("ww", "w.bias", "module.w"):
    with pytest.raises(rules.ConversionError, match=f"{key}: unknown key"):
      convert({"w": np.zeros((3, 2)), key: np.zeros(1)})


def test_patch_kernel_is_the_matrix_of_the_convolution():
  rng = np.random.default_rng(0)
  weight, patch = rng.normal(size=(5, 3, 14, 14)), rng.normal(size=(14, 14, 3))
  expected = np.einsum("oihw,hwi->o", weight, patch)
  matrix = rules.patch_kernel(weight)
  np.testing.assert_allclose(patch.reshape(-1) @ matrix, expected, atol=1e-10)


def test_prototypes_come_with_and_without_a_batch_axis():
  tokens = np.random.default_rng(0).normal(size=(6, 4))
  for array in (tokens, tokens[None]):
    np.testing.assert_array_equal(rules.add_batch_axis(array), tokens[None])
  table = inp_former_names.trainable_rules()
  for key in ("prototype_token", "prototype_token.0"):
    assert rules.target_path(key, table) == "prototypes"


def test_convert_state_keeps_the_modules_structure():
  make = lambda: nnx.Linear(2, 3, use_bias=False, rngs=nnx.Rngs(0))  # noqa: E731
  abstract = nnx.state(nnx.eval_shape(make))
  weight = np.arange(6.0, dtype=np.float32).reshape(3, 2)
  state = rules.convert_state({"w": weight}, TABLE, abstract, "file.npz")
  assert jax.tree.structure(state) == jax.tree.structure(abstract)
  np.testing.assert_array_equal(state["kernel"].get_value(), weight.T)
