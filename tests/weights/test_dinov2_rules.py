"""DINOv2 encoders: both namings, names of full-size ones, file to file."""

import functools
import re
import warnings

import jax
import numpy as np
import pytest
from flax import nnx

from inp_former_jax.models import vit
from inp_former_jax.weights import (
  dinov2_names,
  dinov2_rules,
  files,
  rules,
)
from tests.conftest import GOLDENS

# A block's names in facebookresearch/dinov2 and in Hugging Face files.
BLOCK_NAMES = {
  "norm1": "norm1",
  "attn.proj": "attention.output.dense",
  "norm2": "norm2",
  "mlp.fc1": "mlp.fc1",
  "mlp.fc2": "mlp.fc2",
}
OTHER_NAMES = {
  "cls_token": "embeddings.cls_token",
  "pos_embed": "embeddings.position_embeddings",
  "register_tokens": "embeddings.register_tokens",
  "mask_token": "embeddings.mask_token",
  "patch_embed.proj.weight": "embeddings.patch_embeddings.projection.weight",
  "patch_embed.proj.bias": "embeddings.patch_embeddings.projection.bias",
  "norm.weight": "layernorm.weight",
  "norm.bias": "layernorm.bias",
}


def original(num_registers: int) -> dict[str, np.ndarray]:
  """The tiny encoder of the original code, all 12 blocks, its own names."""
  name = "tiny_reg4_params" if num_registers else "tiny_noreg_params"
  return {
    key.removeprefix("encoder."): value
    for key, value in files.read_arrays(GOLDENS / f"{name}.npz").items()
    if key.startswith("encoder.")
  }


def hugging_face(arrays, prefix="") -> dict[str, np.ndarray]:
  """The same encoder as Hugging Face names it."""
  result = {}
  for key, value in arrays.items():
    if key in OTHER_NAMES:
      result[OTHER_NAMES[key]] = value
      continue
    number, name, last = re.fullmatch(
      r"blocks\.(\d+)\.(.*)\.(\w+)", key
    ).groups()
    block = f"encoder.layer.{number}"
    if name == "attn.qkv":
      parts = np.split(value, 3)
      for part, values in zip(("query", "key", "value"), parts, strict=True):
        result[f"{block}.attention.attention.{part}.{last}"] = values
    elif name in ("ls1", "ls2"):
      result[f"{block}.layer_scale{name[-1]}.lambda1"] = value
    else:
      result[f"{block}.{BLOCK_NAMES[name]}.{last}"] = value
  return {prefix + key: value for key, value in result.items()}


@functools.cache
def abstract(variant: str, num_registers: int, num_blocks: int | None = None):
  """Graph definition and abstract state of an encoder."""
  return nnx.split(
    nnx.eval_shape(
      lambda: vit.VisionTransformer(
        vit.VARIANTS[variant],
        num_registers,
        num_blocks=num_blocks,
        rngs=nnx.Rngs(0),
      )
    )
  )


def load(arrays, num_registers: int, num_blocks: int | None = None):
  graphdef, state = abstract("nano", num_registers, num_blocks)
  table = dinov2_rules.rules_for(arrays, len(state["blocks"]))
  return graphdef, rules.convert_state(arrays, table, state, "FILE")


def assert_same_arrays(found, expected) -> None:
  assert list(found) == list(expected)
  for key, value in expected.items():
    assert found[key].dtype == value.dtype, key
    assert found[key].shape == value.shape, key
    assert found[key].tobytes() == value.tobytes(), key


# Both namings give the same encoder.

PREFIXES = ["", "dinov2.", "dinov2_with_registers."]


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("num_registers", [0, 4])
@pytest.mark.parametrize("num_blocks", [None, 12])
def test_both_namings_give_the_same_state(num_registers, num_blocks, prefix):
  arrays = original(num_registers)
  _, expected = load(arrays, num_registers, num_blocks)
  renamed = hugging_face(arrays, prefix)
  if prefix:
    renamed["classifier.weight"] = np.zeros((10, 96), np.float32)
    renamed["classifier.bias"] = np.zeros(10, np.float32)
  _, found = load(renamed, num_registers, num_blocks)
  assert jax.tree.structure(found) == jax.tree.structure(expected)
  jax.tree.map(np.testing.assert_array_equal, found, expected)


@pytest.mark.parametrize("num_registers", [0, 4])
def test_names_and_order_of_the_original_are_restored(num_registers):
  expected = original(num_registers)
  for arrays in (expected, hugging_face(expected)):
    mixed = {key: arrays[key] for key in sorted(arrays)}
    found = dinov2_rules.facebookresearch_arrays(mixed, "FILE")
    assert_same_arrays(found, expected)


# Transformers itself.


@pytest.fixture(scope="module")
def transformers():
  pytest.importorskip("torch")
  with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    module = pytest.importorskip("transformers")
    # Imported only when asked for, with warnings of their own.
    for name in ("Dinov2Model", "Dinov2WithRegistersModel"):
      getattr(module, name)
  return module


def transformers_model(module, num_registers: int, variant: vit.Variant):
  kind = "Dinov2WithRegisters" if num_registers else "Dinov2"
  registers = {"num_register_tokens": num_registers} if num_registers else {}
  config = getattr(module, f"{kind}Config")(
    hidden_size=variant.width,
    num_hidden_layers=variant.depth,
    num_attention_heads=variant.num_heads,
    patch_size=14,
    image_size=518,
    **registers,
  )
  return getattr(module, f"{kind}Model")(config).eval()


@pytest.mark.parametrize("num_registers", [0, 4])
def test_hidden_states_are_those_of_transformers(
  transformers, tmp_path, num_registers
):
  import torch

  torch.manual_seed(0)
  tiny = vit.VARIANTS["nano"]
  with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    model = transformers_model(transformers, num_registers, tiny)
    # Biases start at 0, scales at 1: random, no exchange of them can hide.
    for parameter in model.parameters():
      noise = 0.05 * torch.randn_like(parameter)
      parameter.data = parameter.data + noise
    model.save_pretrained(tmp_path)
    torch.save(model.state_dict(), tmp_path / "in_memory.pth")
    images = torch.randn(1, 3, 518, 518)
    with torch.no_grad():
      expected = model(images, output_hidden_states=True).hidden_states
  arrays = files.read_arrays(tmp_path / "model.safetensors")
  graphdef, state = load(arrays, num_registers, tiny.depth)
  # transformers 5 has other names in memory than in its files.
  arrays = files.read_arrays(tmp_path / "in_memory.pth")
  _, in_memory = load(arrays, num_registers, tiny.depth)
  jax.tree.map(np.testing.assert_array_equal, in_memory, state)
  encoder = nnx.merge(graphdef, state)
  pixels = images.permute(0, 2, 3, 1).numpy()
  with jax.default_matmul_precision("highest"):
    embedded, outputs = nnx.jit(lambda m, x: (m.embed(x), m(x)))(
      encoder, pixels
    )
  assert len(expected) == 1 + tiny.depth
  for found, reference in zip([embedded, *outputs], expected, strict=True):
    # float32 rounding along 12 blocks, on values up to 8.
    np.testing.assert_allclose(found, reference.numpy(), rtol=0, atol=1e-5)


# Names of full-size encoders, without their memory.


def full_size(variant: str, num_registers: int) -> dict[str, tuple[int, ...]]:
  """Names and shapes of a published encoder, by the original's tiny one."""
  size = vit.VARIANTS[variant]
  tiny = vit.VARIANTS["nano"]

  def scaled(shape):
    return tuple(
      n // tiny.width * size.width if n % tiny.width == 0 else n for n in shape
    )

  before, block, after = {}, {}, {}
  for key, value in original(num_registers).items():
    if match := re.fullmatch(r"blocks\.(\d+)\.(.*)", key):
      block[match[2]] = scaled(value.shape)
    else:
      (after if block else before)[key] = scaled(value.shape)
  blocks = {
    f"blocks.{i}.{key}": shape
    for i in range(size.depth)
    for key, shape in block.items()
  }
  return before | blocks | after


def unfilled(shapes):
  """Arrays of these shapes that share one number."""
  zero = np.zeros((), np.float32)
  return {key: np.broadcast_to(zero, shape) for key, shape in shapes.items()}


def hugging_face_full_size(variant, num_registers):
  arrays = hugging_face(unfilled(full_size(variant, num_registers)))
  return {key: value.shape for key, value in arrays.items()}


def target_shapes(shapes, table) -> dict[str, tuple[int, ...]]:
  """Where a table puts these arrays, and their shapes there."""
  targets, parts = {}, {}
  for key, value in unfilled(shapes).items():
    matches = [(r, m) for r in table if (m := re.fullmatch(r.pattern, key))]
    assert len(matches) == 1, key
    ((rule, match),) = matches
    if rule.target is None:
      continue
    path, shape = match.expand(rule.target), rule.transform(value).shape
    if not rule.parts:
      assert path not in targets, key
      targets[path] = shape
      continue
    parts.setdefault(path, {})[match["part"]] = shape
    if sorted(parts[path]) == sorted(rule.parts):
      assert len(set(parts[path].values())) == 1, key
      targets[path] = (*shape[:-1], len(rule.parts) * shape[-1])
  return targets


@pytest.mark.parametrize("naming", list(dinov2_names.Naming))
@pytest.mark.parametrize("num_registers", [0, 4])
@pytest.mark.parametrize("variant", ["small", "base", "large"])
def test_every_name_of_a_full_size_encoder_is_placed(
  variant, num_registers, naming
):
  shapes = full_size(variant, num_registers)
  # Facebook's files hold 175 / 343 arrays; Hugging Face splits each qkv.
  depth = vit.VARIANTS[variant].depth
  assert len(shapes) == 14 * depth + 7 + (num_registers > 0)
  if naming is dinov2_names.Naming.HUGGING_FACE:
    shapes = hugging_face_full_size(variant, num_registers)
    assert len(shapes) == 18 * depth + 7 + (num_registers > 0)
  _, state = abstract(variant, num_registers)
  expected = {
    "/".join(map(str, path)): variable.get_value().shape
    for path, variable in nnx.to_flat_state(state)
  }
  table = dinov2_rules.rules_for(shapes, len(state["blocks"]))
  assert target_shapes(shapes, table) == expected
  sizes = dinov2_names.read_sizes(shapes, naming)
  registers = "reg" if num_registers else ""
  assert sizes.name == f"dinov2{registers}_vit_{variant}_14"
  full = full_size(variant, num_registers)
  assert dinov2_names.encoder_shapes(sizes) == full
  assert list(dinov2_names.encoder_shapes(sizes)) == list(full)


@pytest.mark.parametrize("num_registers", [0, 4])
@pytest.mark.parametrize("variant", ["small", "base", "large"])
def test_names_of_full_size_encoders_are_those_of_transformers(
  transformers, variant, num_registers
):
  import torch

  with torch.device("meta"), warnings.catch_warnings():
    warnings.simplefilter("ignore")
    model = transformers_model(
      transformers, num_registers, vit.VARIANTS[variant]
    )
  # Names in memory, and those in files that it reads and writes.
  in_files = {}
  for key, value in model.state_dict().items():
    for part in ("query", "key", "value"):
      old = f"attention.attention.{part}."
      key = key.replace(f"attention.{part[0]}_proj.", old)
    key = key.replace("attention.o_proj.", "attention.output.dense.")
    in_files[key] = tuple(value.shape)
  assert in_files == hugging_face_full_size(variant, num_registers)
