"""Encoder weights from files: what fits is loaded, all else refused."""

import functools
import hashlib
import io
import pathlib
import pickle
import zlib

import jax
import numpy as np
import pytest
from flax import nnx

from inp_former_jax.models import vit
from inp_former_jax.weights import files, pretrained
from inp_former_jax.weights.encoders import get_encoder
from inp_former_jax.weights.rules import ConversionError
from tests.conftest import GOLDENS

NAME = "dinov2reg_vit_nano_14"


def official_encoder(kind="reg4") -> dict[str, np.ndarray]:
  """The original's encoder with facebookresearch/dinov2 names."""
  with np.load(GOLDENS / f"tiny_{kind}_params.npz") as file:
    return {
      key.removeprefix("encoder."): file[key]
      for key in file.files
      if key.startswith("encoder.")
    }


@pytest.fixture
def arrays() -> dict[str, np.ndarray]:
  return official_encoder()


@functools.cache
def abstract_state(name=NAME) -> nnx.State:
  spec = get_encoder(name)
  make = lambda: vit.VisionTransformer(  # noqa: E731
    spec.variant, spec.num_registers, rngs=nnx.Rngs(0)
  )
  return nnx.state(nnx.eval_shape(make))


def load(path, name=NAME) -> pretrained.EncoderWeights:
  return pretrained.load_weights(name, str(path), abstract_state(name))


def save(tmp_path, arrays, name="encoder.npz") -> pathlib.Path:
  path = tmp_path / name
  np.savez(path, **arrays)
  return path


def value(state, *path) -> np.ndarray:
  for part in path:
    state = state[part]
  return state.get_value()


@pytest.mark.parametrize(
  "kind, name", [("reg4", NAME), ("noreg", "dinov2_vit_nano_14")]
)
def test_npz_loads_every_array_where_it_belongs(tmp_path, kind, name):
  arrays = official_encoder(kind)
  state = load(save(tmp_path, arrays), name).state
  assert jax.tree.structure(state) == jax.tree.structure(abstract_state(name))
  for leaf in jax.tree.leaves(state):
    assert isinstance(leaf, np.ndarray) and leaf.dtype == np.float32
  equal = np.testing.assert_array_equal
  equal(value(state, "cls_token"), arrays["cls_token"])
  equal(value(state, "pos_embed"), arrays["pos_embed"])
  if kind == "reg4":
    equal(value(state, "register_tokens"), arrays["register_tokens"])
  kernel = value(state, "patch_embed", "kernel").reshape(14, 14, 3, 48)
  weight = arrays["patch_embed.proj.weight"]
  equal(kernel, np.transpose(weight, (2, 3, 1, 0)))
  for i in (0, 9):
    block, prefix = state["blocks"][i], f"blocks.{i}."
    equal(value(block, "norm1", "scale"), arrays[prefix + "norm1.weight"])
    equal(value(block, "norm2", "bias"), arrays[prefix + "norm2.bias"])
    equal(value(block, "ls1"), arrays[prefix + "ls1.gamma"])
    equal(value(block, "ls2"), arrays[prefix + "ls2.gamma"])
    qkv, fc2 = (
      arrays[prefix + "attn.qkv.weight"],
      arrays[prefix + "mlp.fc2.weight"],
    )
    equal(value(block, "attn", "qkv", "kernel"), qkv.T)
    equal(value(block, "mlp", "fc2", "kernel"), fc2.T)
    equal(value(block, "mlp", "fc1", "bias"), arrays[prefix + "mlp.fc1.bias"])


def test_later_blocks_are_not_needed(tmp_path, arrays):
  whole = load(save(tmp_path, arrays)).state
  for key in list(arrays):
    if key.startswith(("blocks.10.", "blocks.11.", "norm.", "mask_token")):
      del arrays[key]
  cut = load(save(tmp_path, arrays, "cut.npz")).state
  jax.tree.map(np.testing.assert_array_equal, cut, whole)


def test_other_float_types_become_float32(tmp_path, arrays):
  single = load(save(tmp_path, arrays)).state
  for dtype, tolerance in ((np.float64, 0), (np.float16, 1e-3)):
    other = {k: v.astype(dtype) for k, v in arrays.items()}
    state = load(save(tmp_path, other, "other.npz")).state
    for a, b in zip(
      jax.tree.leaves(state), jax.tree.leaves(single), strict=True
    ):
      assert a.dtype == np.float32
      np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


def test_sha256_is_the_files(tmp_path, arrays):
  path = save(tmp_path, arrays)
  expected = hashlib.sha256(path.read_bytes()).hexdigest()
  assert load(path).sha256 == expected == files.file_sha256(path)


def test_every_mismatch_is_named_in_one_error(tmp_path, arrays):
  del arrays["blocks.3.norm1.weight"]
  del arrays["register_tokens"]
  arrays["head.weight"] = np.zeros((2, 48), np.float32)
  arrays["blocks.0.attn.proj.bias"] = np.zeros(47, np.float32)
  arrays["blocks.1.mlp.fc1.bias"] = np.full(192, np.nan, np.float32)
  arrays["blocks.2.ls1.gamma"] = np.full(48, np.inf, np.float32)
  arrays["cls_token"] = np.full((1, 1, 48), "x")
  path = save(tmp_path, arrays)
  with pytest.raises(ConversionError) as error:
    load(path)
  message = str(error.value)
  assert str(path) in message and "7 mismatches" in message
  lines = message.splitlines()
  for problem in (
    "blocks/3/norm1/scale: missing",
    "register_tokens: missing",
    "head.weight: unknown key",
    "blocks.0.attn.proj.bias: shape (47,)",
    "blocks.1.mlp.fc1.bias: has NaN or infinite",
    "blocks.2.ls1.gamma: has NaN or infinite",
    "cls_token: holds <U1, not numbers",
  ):
    assert sum(problem in line for line in lines) == 1, (problem, message)
  assert "`encoder`" in lines[-1]


def test_weights_of_the_wrong_rank_are_named(tmp_path, arrays):
  arrays["patch_embed.proj.weight"] = np.zeros((48, 588), np.float32)
  with pytest.raises(
    ConversionError, match=r"patch_embed\.proj\.weight.*shape"
  ):
    load(save(tmp_path, arrays))


@pytest.mark.parametrize(
  "kind, name",
  [
    ("noreg", NAME),
    ("reg4", "dinov2_vit_nano_14"),
    ("reg4", "dinov2reg_vit_small_14"),
  ],
)
def test_another_variant_is_refused(tmp_path, kind, name):
  path = save(tmp_path, official_encoder(kind))
  wrong = "shape" if name.endswith("small_14") else "register_tokens"
  with pytest.raises(ConversionError, match=wrong):
    load(path, name)


def test_no_weights_say_what_to_do_and_are_never_random(tmp_path, monkeypatch):
  monkeypatch.setenv("INP_FORMER_CACHE", str(tmp_path))
  with pytest.raises(FileNotFoundError) as error:
    load("")
  message = str(error.value)
  assert f"{NAME} has no published weights" in message
  assert "`encoder_weights`=FILE" in message


def test_random_weights_only_where_asked_for():
  assert load("random") == pretrained.EncoderWeights(None, "random")
  for near in ("Random", "none", "rand"):
    with pytest.raises(FileNotFoundError):
      load(near)


def test_missing_file_and_folder_are_named(tmp_path):
  for path in (tmp_path / "nothing.npz", tmp_path):
    with pytest.raises(FileNotFoundError, match=str(path)):
      load(path)


def test_unknown_suffix_is_refused(tmp_path):
  path = tmp_path / "encoder.bin"
  path.write_bytes(b"\0" * 64)
  with pytest.raises(ValueError, match=r"\.npz.*\.pth"):
    load(path)


def _truncated(whole: bytes) -> bytes:
  return whole[: len(whole) // 2]


def _damaged(whole: bytes) -> bytes:
  """The deflated data of the first array, overwritten."""
  start = whole.index(b".npy") + 40
  return whole[:start] + b"\xff" * 20 + whole[start + 20 :]


def _array_alone(whole: bytes) -> bytes:
  del whole
  buffer = io.BytesIO()
  np.save(buffer, np.zeros(3))
  return buffer.getvalue()


@pytest.mark.parametrize(
  "spoil",
  [
    _truncated,
    _damaged,
    _array_alone,
    lambda whole: b"",
    lambda whole: b"<!DOCTYPE html><title>404 Not Found</title>",
  ],
  ids=["truncated", "damaged", "npy", "empty", "text"],
)
def test_files_that_are_no_npz_are_refused(tmp_path, spoil):
  buffer = io.BytesIO()
  np.savez_compressed(buffer, a=np.random.default_rng(0).normal(size=(50, 50)))
  path = tmp_path / "encoder.npz"
  path.write_bytes(spoil(buffer.getvalue()))
  with pytest.raises(ValueError, match="cannot be read as a .npz") as error:
    load(path)
  assert str(path) in str(error.value)
  assert "fetch it again" in str(error.value)


def test_damage_inside_a_deflated_array_is_no_other_error(tmp_path):
  """The cause is kept; zlib's own error is no ValueError."""
  buffer = io.BytesIO()
  np.savez_compressed(buffer, a=np.zeros((50, 50)))
  path = tmp_path / "encoder.npz"
  path.write_bytes(_damaged(buffer.getvalue()))
  with pytest.raises(ValueError) as error:
    files.read_arrays(path)
  assert isinstance(error.value.__cause__, zlib.error)


class Malicious:
  """Unpickling it leaves a file behind."""

  def __init__(self, path):
    self.path = path

  def __reduce__(self):
    return pathlib.Path.touch, (self.path,)


def test_npz_with_pickled_objects_is_refused_and_not_run(tmp_path):
  trace = tmp_path / "trace"
  path = tmp_path / "encoder.npz"
  np.savez(path, cls_token=np.array([Malicious(trace)], object))
  with pytest.raises(ValueError, match="cannot be read as a .npz"):
    load(path)
  assert not trace.exists()
  with np.load(path, allow_pickle=True) as file:
    file["cls_token"]
  assert trace.exists()  # it would have run


@pytest.fixture
def torch():
  return pytest.importorskip("torch")


@pytest.mark.parametrize("name", ["encoder.pth", "encoder.pt", "encoder.PTH"])
def test_pth_loads_what_npz_loads(tmp_path, arrays, torch, name):
  path = tmp_path / name
  torch.save({k: torch.from_numpy(v) for k, v in arrays.items()}, path)
  ours, npz = load(path), load(save(tmp_path, arrays))
  jax.tree.map(np.testing.assert_array_equal, ours.state, npz.state)
  assert ours.sha256 == files.file_sha256(path) != npz.sha256


def test_pth_of_parameters_and_of_bfloat16_is_read(tmp_path, torch):
  values = np.linspace(-1, 1, 6, dtype=np.float32)
  path = tmp_path / "encoder.pth"
  tensor = torch.from_numpy(values)
  torch.save({"a": torch.nn.Parameter(tensor), "b": tensor.bfloat16()}, path)
  read = files.read_arrays(path)
  np.testing.assert_array_equal(read["a"], values)
  np.testing.assert_allclose(read["b"], values, rtol=2**-8)


def test_malicious_pth_is_refused_and_not_run(tmp_path, torch):
  trace = tmp_path / "trace"
  saved, pickled = tmp_path / "saved.pth", tmp_path / "pickled.pth"
  torch.save({"cls_token": Malicious(trace)}, saved)
  pickled.write_bytes(pickle.dumps({"cls_token": Malicious(trace)}))
  for path in (saved, pickled):
    with pytest.raises(ValueError, match="cannot be read as a .pth"):
      load(path)
  assert not trace.exists()
  pickle.loads(pickled.read_bytes())
  assert trace.exists()  # it would have run


def test_pth_of_something_else_says_what_it_holds(tmp_path, torch):
  path = tmp_path / "encoder.pth"
  for content, reason in (
    (torch.zeros(3), "holds Tensor, not named tensors"),
    ({"model": {"cls_token": torch.zeros(3)}, "epoch": 3}, "model, epoch"),
  ):
    torch.save(content, path)
    with pytest.raises(ValueError, match=reason):
      load(path)


def test_files_that_are_no_pth_are_refused(tmp_path, torch):
  whole = io.BytesIO()
  torch.save({"a": torch.zeros(500)}, whole)
  path = tmp_path / "encoder.pth"
  for content in (
    b"",
    _truncated(whole.getvalue()),
    b"version https://git-lfs.github.com/spec/v1\n",
    np.random.default_rng(17).bytes(500),  # IndexError in torch's unpickler
  ):
    path.write_bytes(content)
    with pytest.raises(ValueError, match="cannot be read as a .pth"):
      load(path)


def test_pth_without_torch_says_what_to_install(tmp_path, monkeypatch):
  monkeypatch.setitem(__import__("sys").modules, "torch", None)
  path = tmp_path / "encoder.pth"
  path.write_bytes(b"anything")
  with pytest.raises(ImportError, match=r"inp-former-jax\[convert\]"):
    load(path)
