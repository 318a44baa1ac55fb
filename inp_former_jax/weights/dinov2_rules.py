"""Rule tables between the namings of DINOv2 encoders and this project's."""

import re
from collections.abc import Iterable, Mapping

import numpy as np
from flax import nnx

from inp_former_jax.weights.dinov2_names import (
  BLOCK,
  BLOCK_IN_TRANSFORMERS_5,
  BLOCK_PREFIX,
  EMBEDDING,
  FINAL_NORM,
  NEVER_RUN,
  PREFIX,
  WAY_BACK,
  Naming,
  Parameter,
  encoder_shapes,
  read_naming,
  read_sizes,
)
from inp_former_jax.weights.rules import Rule, convert, target_path


def rules_for(
  keys: Iterable[str], num_blocks: int, source: object = "The file"
) -> list[Rule]:
  """Picks the rule table that fits an encoder's names.

  Args:
    keys: Names of the arrays in the file.
    num_blocks: Number of blocks of the model; later blocks of the file are
      ignored.
    source: The file, named in error messages.

  Returns:
    Rules that lead to the state of a `VisionTransformer`.

  Raises:
    ValueError: If the names belong to neither naming scheme.
  """
  return _rules(read_naming(keys, source), num_blocks, to_names=False)


def encoder_rules(num_blocks: int) -> list[Rule]:
  """Returns the rule table for an encoder with facebookresearch/dinov2 names.

  Args:
    num_blocks: Number of blocks of the model; later blocks of the file are
      ignored.

  Returns:
    Rules from names such as `blocks.0.attn.qkv.weight` to the state of a
    `VisionTransformer`.
  """
  return _rules(Naming.FACEBOOKRESEARCH, num_blocks, to_names=False)


def _rules(naming: Naming, num_blocks: int, *, to_names: bool) -> list[Rule]:
  """Builds the table to a VisionTransformer, or to facebookresearch names."""
  used = "|".join(str(i) for i in range(num_blocks))
  block = BLOCK_PREFIX[naming]
  rules = [
    _rule(p, naming, to_names, PREFIX[naming], "")
    for p in EMBEDDING + FINAL_NORM
  ]
  blocks = BLOCK
  if naming is Naming.HUGGING_FACE:
    blocks += BLOCK_IN_TRANSFORMERS_5
  target = r"blocks.\1." if to_names else r"blocks/\1/"
  rules += [
    _rule(p, naming, to_names, rf"{block}({used})\.", target) for p in blocks
  ]
  # These are known but never run: later blocks, and a classifier's head.
  rules.append(Rule(rf"{block}(?!(?:{used})\.)\d+\..*", None))
  if naming is Naming.HUGGING_FACE:
    rules.append(Rule(r"classifier\.(weight|bias)", None))
  return rules


def _rule(
  parameter: Parameter,
  naming: Naming,
  to_names: bool,
  pattern_prefix: str,
  target_prefix: str,
) -> Rule:
  facebook = naming is Naming.FACEBOOKRESEARCH
  name = parameter.facebookresearch if facebook else parameter.hugging_face
  pattern, parts = pattern_prefix + re.escape(name), ()
  if braces := re.search(r"\{(.*)\}", name):
    parts = tuple(braces[1].split(","))
    group = f"(?P<part>{'|'.join(parts)})"
    pattern = pattern_prefix + group.join(map(re.escape, name.split(braces[0])))
  if to_names:
    target = target_prefix + parameter.facebookresearch
    return Rule(pattern, target, parts=parts, axis=0)
  target = parameter.target and target_prefix + parameter.target
  return Rule(pattern, target, parameter.transform, parts)


def facebookresearch_arrays(
  arrays: Mapping[str, np.ndarray], source: object
) -> dict[str, np.ndarray]:
  """Gives an encoder the names and the order of facebookresearch/dinov2.

  Args:
    arrays: The arrays of an encoder by name, in either naming scheme and of
      any width and depth.
    source: The encoder's file, named in error messages.

  Returns:
    The float32 arrays by their names in facebookresearch/dinov2, including
    those that INP-Former never runs, but without a classifier's head.

  Raises:
    ValueError: If the arrays are no encoder or not a whole one; every
      mismatch is named. The mask token and the final norm may be absent.
  """
  naming = read_naming(arrays, source)
  shapes = {key: np.shape(value) for key, value in arrays.items()}
  sizes = read_sizes(shapes, naming)
  table = _rules(naming, sizes.depth, to_names=True)
  present = {target_path(key, table) for key in arrays}
  expected = {
    name: shape
    for name, shape in encoder_shapes(sizes).items()
    if name in present or name not in NEVER_RUN
  }
  remedy = "The file may be damaged, or hold another kind of model."
  return convert(arrays, table, expected, source, remedy)


def named_arrays(state: nnx.State) -> dict[str, np.ndarray]:
  """Converts an encoder of this project to facebookresearch/dinov2 names.

  Args:
    state: State of a `VisionTransformer`.

  Returns:
    The float32 arrays by name. The table of `encoder_rules` converts them
    back.
  """
  values = {
    "/".join(map(str, path)): np.asarray(value, np.float32)
    for path, value in nnx.to_flat_state(state)
  }
  arrays = {}
  named = [("", "", p) for p in EMBEDDING]
  for i in range(len(state["blocks"])):
    named += [(f"blocks.{i}.", f"blocks/{i}/", p) for p in BLOCK]
  for name, path, parameter in named:
    value = values.pop(path + (parameter.target or ""), None)
    if value is not None:
      way_back = WAY_BACK.get(parameter.transform, np.asarray)
      arrays[name + parameter.facebookresearch] = way_back(value)
  if values:
    raise AssertionError(f"No name for {', '.join(values)}.")
  return arrays
