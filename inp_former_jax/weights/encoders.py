"""The table of encoders: name, size, sources of the weights, licence."""

import dataclasses
import difflib

from inp_former_jax.models import vit

DEMO_ENCODER = "demo_vit_tiny_14"  # distilled, and shipped with this package
_ORIGINAL_ROOT = "https://dl.fbaipublicfiles.com/dinov2"


@dataclasses.dataclass(frozen=True)
class EncoderSpec:
  """An encoder that a config can name.

  Attributes:
    name: The encoder's name, as the original spells it.
    variant: The encoder's width, depth, heads, patch size and target blocks.
    num_registers: Number of register tokens, 0 or 4.
    hub_id: Repository of the weights on the Hugging Face Hub; empty if there
      is none.
    url: Address of the original PyTorch file; empty if there is none.
    url_sha256: Checksum of that file, in hex; empty if it is not known, in
      which case the first download is trusted.
    bundled_file: Name of the weights' file among this package's assets; empty
      for all encoders but the demo's.
    bundled_sha256: Checksum of the bundled file, in hex.
    licence: SPDX identifier of the weights' licence; empty where the weights
      are the user's own.
    is_offered: Whether error messages suggest the encoder; False for sizes
      that only tests use.
  """

  name: str
  variant: vit.Variant
  num_registers: int = 0
  hub_id: str = ""
  url: str = ""
  url_sha256: str = ""
  bundled_file: str = ""
  bundled_sha256: str = ""
  licence: str = ""
  is_offered: bool = True

  @property
  def patch_size(self) -> int:
    """Side of the encoder's patches in pixels."""
    return self.variant.patch_size

  @property
  def target_blocks(self) -> tuple[int, ...]:
    """The 0-based blocks whose outputs INP-Former reads."""
    return self.variant.target_blocks

  @property
  def is_published(self) -> bool:
    """Whether the encoder's weights can be downloaded."""
    return bool(self.hub_id or self.url)


def _published(size: str, num_registers: int) -> EncoderSpec:
  """Returns the row of a DINOv2 encoder published by Meta AI."""
  registers = "reg" if num_registers else ""
  suffix = f"_reg{num_registers}" if num_registers else ""
  model = f"dinov2_vit{size[0]}14"
  hub_suffix = "-with-registers" if num_registers else ""
  return EncoderSpec(
    name=f"dinov2{registers}_vit_{size}_14",
    variant=vit.VARIANTS[size],
    num_registers=num_registers,
    hub_id=f"facebook/dinov2{hub_suffix}-{size}",
    url=f"{_ORIGINAL_ROOT}/{model}/{model}{suffix}_pretrain.pth",
    licence="Apache-2.0",
  )


def _for_tests(size: str, num_registers: int) -> EncoderSpec:
  registers = "reg" if num_registers else ""
  return EncoderSpec(
    name=f"dinov2{registers}_vit_{size}_14",
    variant=vit.VARIANTS[size],
    num_registers=num_registers,
    is_offered=False,
  )


_SPECS = (
  *(_published(size, 4) for size in ("small", "base", "large")),
  *(_published(size, 0) for size in ("small", "base", "large")),
  # A student distilled by the user: its weights are always given as a file.
  EncoderSpec("dinov2_vit_tiny_14", vit.VARIANTS["tiny"]),
  EncoderSpec(
    DEMO_ENCODER,
    vit.VARIANTS["tiny"],
    bundled_file="demo_vit_tiny_14.npz",
    bundled_sha256=(
      "4df8f0a0095d3491790dcf04fa4d3ae173f7ebb817216e51759540951022e9d0"
    ),
    licence="Apache-2.0",
  ),
  EncoderSpec("dinov2reg_vit_tiny_14", vit.VARIANTS["tiny"], 4),
  *(_for_tests(size, 0) for size in ("nano", "femto")),
  *(_for_tests(size, 4) for size in ("nano", "femto")),
)
ENCODERS: dict[str, EncoderSpec] = {spec.name: spec for spec in _SPECS}


def get_encoder(name: str) -> EncoderSpec:
  """Looks up an encoder.

  Args:
    name: The encoder's name, such as `dinov2reg_vit_base_14`.

  Returns:
    The encoder's row of ENCODERS.

  Raises:
    ValueError: If there is no encoder of that name; the nearest name is
      suggested.
  """
  if name in ENCODERS:
    return ENCODERS[name]
  offered = [spec.name for spec in ENCODERS.values() if spec.is_offered]
  nearest = difflib.get_close_matches(name, offered, n=1)
  hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
  raise ValueError(
    f"Unknown encoder {name!r}.{hint} The encoders are {', '.join(offered)}."
  )


def find_name(width: int, depth: int, num_registers: int) -> str | None:
  """Finds the name of the encoder that has the given sizes.

  Args:
    width: Number of channels of a token.
    depth: Number of blocks.
    num_registers: Number of register tokens.

  Returns:
    The name, or None if no known encoder has these sizes.
  """
  for spec in ENCODERS.values():
    sizes = (spec.variant.width, spec.variant.depth, spec.num_registers)
    if sizes == (width, depth, num_registers):
      return spec.name
  return None
