"""Conversion by a table of rules, which reports all mismatches together.

Exactly one rule must match each key of a checkpoint.
"""

import dataclasses
import difflib
import math
import re
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from flax import nnx

Transform = Callable[[np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Rule:
  r"""A rule that says where an array of a foreign checkpoint goes.

  Attributes:
    pattern: Regular expression that matches the whole key.
    target: Path in this project's model, with `/` between its parts and group
      references such as `\1`; None for keys that are known but not needed.
    transform: Function from the foreign array to ours; by default the
      identity.
    parts: The values of the pattern's group named `part`, where several keys
      make up one array, in the order in which their arrays are joined. Each
      must appear once. Empty where a key is a whole array.
    axis: Axis of our array along which the parts are joined.
  """

  pattern: str
  target: str | None
  transform: Transform = np.asarray
  parts: tuple[str, ...] = ()
  axis: int = -1


_REMEDY = "Check that `encoder` names the variant that the file holds."


class ConversionError(ValueError):
  """Raised when a checkpoint does not fit the model; names every mismatch."""


def transpose(x: np.ndarray) -> np.ndarray:
  """Transposes a linear layer's weight: (out, in) -> (in, out)."""
  return x.T


def patch_kernel(x: np.ndarray) -> np.ndarray:
  """Flattens a patch convolution (C, 3, p, p) to a matrix (p * p * 3, C)."""
  return x.transpose(2, 3, 1, 0).reshape(-1, x.shape[0])


def patch_convolution(x: np.ndarray) -> np.ndarray:
  """Reshapes a patch matrix (p * p * 3, C) to a convolution (C, 3, p, p)."""
  size = math.isqrt(len(x) // 3)
  return x.reshape(size, size, 3, -1).transpose(3, 2, 0, 1)


def add_batch_axis(x: np.ndarray) -> np.ndarray:
  """Adds a batch axis to (M, C), unless it has one: returns (1, M, C)."""
  return x if x.ndim == 3 else x[None]


def flatten(x: np.ndarray) -> np.ndarray:
  """Flattens an array to one axis: (h, 1, 1) -> (h,)."""
  return x.reshape(-1)


def convert(
  arrays: Mapping[str, np.ndarray],
  rules: Sequence[Rule],
  expected: Mapping[str, tuple[int, ...]],
  source: object,
  remedy: str = _REMEDY,
) -> dict[str, np.ndarray]:
  """Applies a rule table to a checkpoint.

  Args:
    arrays: The arrays of the checkpoint, by key.
    rules: The rule table; exactly one rule must match each key.
    expected: The shape of every array of the model, by path.
    source: The checkpoint's file, named in error messages.
    remedy: Advice on what to do about a mismatch, for the error.

  Returns:
    The float32 arrays by path, with exactly the paths of `expected` and in
    its order.

  Raises:
    ConversionError: If a key matches no rule or several, or if arrays are
      missing, are of another shape or are not finite (including arrays that
      are not needed, because their file must be damaged). One error names all
      of them.
  """
  # A slot is a path, or one part of the array at a path: path[part].
  found: dict[str, np.ndarray] = {}
  origin: dict[str, str] = {}
  joined: dict[str, Rule] = {}
  problems, unknown = [], []
  for key, value in arrays.items():
    value = _to_float32(key, value, problems)
    matches = _matches(key, rules)
    if len(matches) != 1:
      unknown.append(key)
      problems.append(_match_problem(key, matches))
      continue
    ((rule, match),) = matches
    if rule.target is None:
      continue
    path = slot = match.expand(rule.target)
    if rule.parts:
      joined[path] = rule
      slot = _slot(path, match["part"])
    if slot in origin:
      problems.append(f"{key} and {origin[slot]} both go to {slot}")
      continue
    origin[slot] = key
    found[slot] = _transform(key, value, rule, problems)
  problems += _compare(found, origin, _slots(expected, joined), unknown)
  if problems:
    listing = "\n  ".join(problems)
    plural = "" if len(problems) == 1 else "es"
    raise ConversionError(
      f"{source} does not fit the model asked for; "
      f"{len(problems)} mismatch{plural}:\n  {listing}\n{remedy}"
    )
  return {path: _join(found, path, joined.get(path)) for path in expected}


def convert_state(
  arrays: Mapping[str, np.ndarray],
  rules: Sequence[Rule],
  abstract_state: nnx.State,
  source: object,
) -> nnx.State:
  """Applies a rule table to a checkpoint, to get the state of a module.

  Args:
    arrays: The arrays of the checkpoint, by key.
    rules: The rule table; exactly one rule must match each key.
    abstract_state: State of the module; only its shapes are used.
    source: The checkpoint's file, named in error messages.

  Returns:
    The state, of numpy float32 arrays.

  Raises:
    ConversionError: If the checkpoint does not fit the module; see `convert`.
  """
  flat = {
    "/".join(map(str, path)): (path, variable)
    for path, variable in nnx.to_flat_state(abstract_state)
  }
  expected = {key: v.get_value().shape for key, (_, v) in flat.items()}
  values = convert(arrays, rules, expected, source)
  return nnx.from_flat_state(
    (path, variable.replace(values[key]))
    for key, (path, variable) in flat.items()
  )


def target_path(key: str, rules: Sequence[Rule]) -> str | None:
  """Finds the path that a key leads to.

  Args:
    key: A key of the checkpoint.
    rules: The rule table.

  Returns:
    The path in the model; None if the key is not needed, or if not exactly
    one rule matches it.
  """
  matches = _matches(key, rules)
  if len(matches) != 1 or matches[0][0].target is None:
    return None
  return matches[0][1].expand(matches[0][0].target)


def _matches(key: str, rules: Sequence[Rule]) -> list[tuple[Rule, re.Match]]:
  return [(r, m) for r in rules if (m := re.fullmatch(r.pattern, key))]


def _match_problem(key: str, matches: list[tuple[Rule, re.Match]]) -> str:
  if not matches:
    return f"{key}: unknown key"
  patterns = ", ".join(rule.pattern for rule, _ in matches)
  return f"{key}: several rules match ({patterns})"


def _slot(path: str, part: str) -> str:
  return f"{path}[{part}]"


def _slots(
  expected: Mapping[str, tuple[int, ...]], joined: Mapping[str, Rule]
) -> dict[str, tuple[int, ...]]:
  """Returns the shape of every slot; arrays of several parts split evenly."""
  slots = {}
  for path, shape in expected.items():
    if path not in joined:
      slots[path] = tuple(shape)
      continue
    rule, sizes = joined[path], list(shape)
    sizes[rule.axis] //= len(rule.parts)
    slots |= {_slot(path, part): tuple(sizes) for part in rule.parts}
  return slots


def _join(
  found: Mapping[str, np.ndarray], path: str, rule: Rule | None
) -> np.ndarray:
  if rule is None:
    return found[path]
  parts = [found[_slot(path, part)] for part in rule.parts]
  return np.concatenate(parts, axis=rule.axis)


def _to_float32(key, value, problems: list[str]) -> np.ndarray:
  value = np.asarray(value)
  if not np.issubdtype(value.dtype, np.number):
    problems.append(f"{key}: holds {value.dtype}, not numbers")
    return np.zeros(value.shape, np.float32)
  with np.errstate(over="ignore"):  # overflow gives inf, reported below
    value = value.astype(np.float32)
  if not np.isfinite(value).all():
    problems.append(f"{key}: has NaN or infinite values")
  return value


def _transform(key, value, rule: Rule, problems: list[str]) -> np.ndarray:
  try:
    return np.asarray(rule.transform(value), order="C")
  except ValueError:
    problems.append(f"{key}: unexpected shape {value.shape}")
    return value


def _compare(found, origin, slots, unknown: Sequence[str]) -> list[str]:
  """Lists the slots that are missing, left over or of another shape."""
  problems = []
  surplus = sorted(set(found) - set(slots))
  # Keys under which the file may hold a missing array.
  near = {slot: origin[slot] for slot in surplus}
  near |= {key.replace(".", "/"): key for key in unknown}
  for slot, shape in slots.items():
    if slot not in found:
      names = difflib.get_close_matches(slot, near, 1)
      hint = f" (nearest: {near[names[0]]})" if names else ""
      problems.append(f"{slot}: missing{hint}")
    elif found[slot].shape != shape:
      problems.append(
        f"{origin[slot]}: shape {found[slot].shape} as {slot}, expected {shape}"
      )
  return problems + [f"{origin[s]}: the model has no {s}" for s in surplus]
