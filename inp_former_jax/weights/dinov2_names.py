"""Names, shapes and sizes of DINOv2 encoders, in both naming schemes."""

import dataclasses
import enum
import re
from collections.abc import Iterable, Mapping

import numpy as np

from inp_former_jax.terminal import shortened
from inp_former_jax.weights.encoders import find_name
from inp_former_jax.weights.rules import (
  Transform,
  patch_convolution,
  patch_kernel,
  transpose,
)


class Naming(enum.Enum):
  """The two naming schemes for the arrays of an encoder."""

  FACEBOOKRESEARCH = "facebookresearch"
  HUGGING_FACE = "Hugging Face"


@dataclasses.dataclass(frozen=True)
class Parameter:
  """A parameter: its name in both schemes, its shape and its target.

  Attributes:
    facebookresearch: Name in facebookresearch/dinov2.
    hugging_face: Name in files of transformers. Where several arrays make up
      one of ours, the differing part of their names is listed in braces, in
      the order in which they are joined.
    shape: Shape in facebookresearch/dinov2, in terms of the width C and the
      number of registers R.
    target: Path in a `VisionTransformer`; None for parameters that are never
      run.
    transform: Function from the foreign array to ours.
  """

  facebookresearch: str
  hugging_face: str
  shape: str
  target: str | None
  transform: Transform = np.asarray


EMBEDDING = (
  Parameter("cls_token", "embeddings.cls_token", "1 1 C", "cls_token"),
  Parameter(
    "pos_embed", "embeddings.position_embeddings", "1 1370 C", "pos_embed"
  ),
  Parameter(
    "register_tokens", "embeddings.register_tokens", "1 R C", "register_tokens"
  ),
  Parameter("mask_token", "embeddings.mask_token", "1 C", None),
  Parameter(
    "patch_embed.proj.weight",
    "embeddings.patch_embeddings.projection.weight",
    "C 3 14 14",
    "patch_embed/kernel",
    patch_kernel,
  ),
  Parameter(
    "patch_embed.proj.bias",
    "embeddings.patch_embeddings.projection.bias",
    "C",
    "patch_embed/bias",
  ),
)


def _norm(name: str) -> tuple[Parameter, ...]:
  weight, bias = f"{name}.weight", f"{name}.bias"
  return (
    Parameter(weight, weight, "C", f"{name}/scale"),
    Parameter(bias, bias, "C", f"{name}/bias"),
  )


def _linear(
  name: str, hugging_face: str, outputs: str, inputs: str
) -> tuple[Parameter, ...]:
  path = name.replace(".", "/")
  return (
    Parameter(
      f"{name}.weight",
      f"{hugging_face}.weight",
      f"{outputs} {inputs}",
      f"{path}/kernel",
      transpose,
    ),
    Parameter(f"{name}.bias", f"{hugging_face}.bias", outputs, f"{path}/bias"),
  )


BLOCK = (
  *_norm("norm1"),
  *_linear("attn.qkv", "attention.attention.{query,key,value}", "3C", "C"),
  *_linear("attn.proj", "attention.output.dense", "C", "C"),
  Parameter("ls1.gamma", "layer_scale1.lambda1", "C", "ls1"),
  *_norm("norm2"),
  *_linear("mlp.fc1", "mlp.fc1", "4C", "C"),
  *_linear("mlp.fc2", "mlp.fc2", "C", "4C"),
  Parameter("ls2.gamma", "layer_scale2.lambda1", "C", "ls2"),
)
# State dicts of transformers 5 have new names for some parameters; the files
# that its `save_pretrained` writes keep the old names.
BLOCK_IN_TRANSFORMERS_5 = (
  *_linear("attn.qkv", "attention.{q,k,v}_proj", "3C", "C"),
  *_linear("attn.proj", "attention.o_proj", "C", "C"),
)
FINAL_NORM = (
  Parameter("norm.weight", "layernorm.weight", "C", None),
  Parameter("norm.bias", "layernorm.bias", "C", None),
)
NEVER_RUN = {
  p.facebookresearch for p in EMBEDDING + FINAL_NORM if p.target is None
}
# Functions from our array to the foreign one, where the two differ.
WAY_BACK: dict[Transform, Transform] = {
  transpose: transpose,
  patch_kernel: patch_convolution,
}
# Regular expressions for what precedes every name, and a block's number.
PREFIX = {
  Naming.FACEBOOKRESEARCH: "",
  Naming.HUGGING_FACE: r"(?:dinov2(?:_with_registers)?\.)?",
}
BLOCK_PREFIX = {
  Naming.FACEBOOKRESEARCH: r"blocks\.",
  Naming.HUGGING_FACE: PREFIX[Naming.HUGGING_FACE] + r"encoder\.layer\.",
}
_TELLING_NAMES = {
  Naming.FACEBOOKRESEARCH: r"cls_token|pos_embed|(patch_embed|blocks\.\d+)\..*",
  Naming.HUGGING_FACE: PREFIX[Naming.HUGGING_FACE]
  + r"(embeddings|encoder\.layer\.\d+)\..*",
}


def read_naming(keys: Iterable[str], source: object = "The file") -> Naming:
  """Determines the naming scheme of an encoder's arrays.

  Args:
    keys: Names of the arrays.
    source: The encoder's file, named in error messages.

  Returns:
    The naming scheme. A single name that only one scheme has decides.

  Raises:
    ValueError: If the names belong to neither scheme.
  """
  keys = list(keys)
  for naming in Naming:
    if any(re.fullmatch(_TELLING_NAMES[naming], key) for key in keys):
      return naming
  message = (
    f"{source} holds no DINOv2 encoder: expected the names of "
    "facebookresearch/dinov2 (cls_token, blocks.0.attn.qkv.weight) or of "
    "Hugging Face (embeddings.cls_token, "
    "encoder.layer.0.attention.attention.query.weight), but it holds "
    f"{shortened(keys, 3) or 'no array'}."
  )
  if "encoder.cls_token" in keys:
    message += (
      " It seems to be a whole INP-Former checkpoint: convert it by "
      "python -m weights_conversion.inp_former to_flax."
    )
  raise ValueError(message)


@dataclasses.dataclass(frozen=True)
class EncoderSizes:
  """Sizes of an encoder, as its arrays show them.

  Attributes:
    width: Number of channels C of a token; 0 if there is no class token to
      tell it.
    depth: Number of blocks.
    num_registers: Number of register tokens R.
  """

  width: int
  depth: int
  num_registers: int

  @property
  def name(self) -> str | None:
    """The original's name for an encoder of these sizes, or None."""
    return find_name(self.width, self.depth, self.num_registers)

  def __str__(self) -> str:
    """Returns the encoder's name and sizes, on one line."""
    return (
      f"{self.name or 'DINOv2 encoder of another size'} (width {self.width}, "
      f"{self.depth} blocks, {self.num_registers} registers)"
    )


def read_sizes(
  shapes: Mapping[str, tuple[int, ...]], naming: Naming
) -> EncoderSizes:
  """Reads an encoder's sizes from the shapes of its arrays.

  Args:
    shapes: The shape of each array, by name.
    naming: Naming scheme of the arrays.

  Returns:
    The sizes of the arrays that are present. Missing arrays are not noticed
    here.
  """
  plain = {
    re.sub("^" + PREFIX[naming], "", key): shape
    for key, shape in shapes.items()
  }
  facebook = naming is Naming.FACEBOOKRESEARCH
  prefix = "" if facebook else "embeddings."
  token = plain.get(prefix + "cls_token") or (0,)
  registers = plain.get(prefix + "register_tokens", ())
  block = re.compile(BLOCK_PREFIX[naming] + r"(\d+)\.")
  numbers = {match[1] for key in plain if (match := block.match(key))}
  num_registers = registers[-2] if len(registers) > 1 else 0
  return EncoderSizes(token[-1], len(numbers), num_registers)


def encoder_shapes(sizes: EncoderSizes) -> dict[str, tuple[int, ...]]:
  """Returns the name and shape of every array of a published encoder.

  Args:
    sizes: Sizes of the encoder.

  Returns:
    The shape of each array by its name in facebookresearch/dinov2, in the
    order of the files published there.
  """
  blocks = [
    dataclasses.replace(p, facebookresearch=f"blocks.{i}.{p.facebookresearch}")
    for i in range(sizes.depth)
    for p in BLOCK
  ]
  return {
    p.facebookresearch: tuple(_size(s, sizes) for s in p.shape.split())
    for p in (*EMBEDDING, *blocks, *FINAL_NORM)
    if p.facebookresearch != "register_tokens" or sizes.num_registers
  }


def _size(symbol: str, sizes: EncoderSizes) -> int:
  """Evaluates a symbol of a shape, such as `3C`."""
  if symbol == "R":
    return sizes.num_registers
  if symbol.endswith("C"):
    return int(symbol[:-1] or 1) * sizes.width
  return int(symbol)
