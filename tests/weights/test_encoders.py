"""The table of encoders: names, sizes, addresses, and what is not in it."""

import pytest

from inp_former_jax.models import vit
from inp_former_jax.weights import encoders


@pytest.mark.parametrize(
  "size", ["tiny", "small", "base", "large", "nano", "femto"]
)
@pytest.mark.parametrize("num_registers", [0, 4])
def test_names_give_size_and_registers(size, num_registers):
  name = f"dinov2{'reg' if num_registers else ''}_vit_{size}_14"
  spec = encoders.get_encoder(name)
  assert spec.name == name
  assert spec.variant is vit.VARIANTS[size]
  assert spec.num_registers == num_registers
  assert spec.patch_size == 14
  assert len(spec.target_blocks) == (4 if size == "femto" else 8)
  row = spec.variant
  assert encoders.find_name(row.width, row.depth, num_registers) == name


@pytest.mark.parametrize("size", ["small", "base", "large"])
@pytest.mark.parametrize("registers", [False, True])
def test_published_encoders_have_both_addresses(size, registers):
  spec = encoders.get_encoder(
    f"dinov2{'reg' if registers else ''}_vit_{size}_14"
  )
  middle = "-with-registers" if registers else ""
  assert spec.hub_id == f"facebook/dinov2{middle}-{size}"
  model = f"dinov2_vit{size[0]}14"
  assert spec.url == (
    f"https://dl.fbaipublicfiles.com/dinov2/{model}/{model}"
    f"{'_reg4' if registers else ''}_pretrain.pth"
  )
  assert spec.is_published and spec.licence == "Apache-2.0"


def test_keys_are_the_names():
  assert all(name == spec.name for name, spec in encoders.ENCODERS.items())


def test_other_sizes_have_no_name():
  assert encoders.find_name(384, 12, 2) is None
  assert encoders.find_name(385, 12, 0) is None


@pytest.mark.parametrize(
  "name, nearest",
  [
    ("", None),
    ("dinov2_vit_giant_14", "dinov2_vit_tiny_14"),
    ("dinov2_vit_small_16", "dinov2_vit_small_14"),
    ("dinov2reg_vit_small", "dinov2reg_vit_small_14"),
    ("dinov2_vit_small_14 ", "dinov2_vit_small_14"),
    ("DINOv2_vit_small_14", "dinov2_vit_small_14"),
    ("resnet50", None),
  ],
)
def test_unknown_names_are_refused_and_the_nearest_named(name, nearest):
  with pytest.raises(ValueError) as error:
    encoders.get_encoder(name)
  message = str(error.value)
  assert repr(name) in message
  assert ("Did you mean" in message) == (nearest is not None)
  if nearest:
    assert f"Did you mean {nearest!r}?" in message
  for spec in encoders.ENCODERS.values():
    assert (f" {spec.name}" in message) == spec.is_offered
