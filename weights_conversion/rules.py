"""Conversion as a table of rules: each key matched once, errors together."""

import dataclasses
import difflib
import re
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from flax import nnx


@dataclasses.dataclass(frozen=True)
class Rule:
  r"""Where an array of a foreign checkpoint goes.

  Attributes:
    pattern: Regular expression that matches the whole key.
    target: Path in this project's model, `/` between its parts, with group
      references such as `\1`; None for keys that are known and not needed.
    transform: From the foreign array to ours; the identity by default.
  """

  pattern: str
  target: str | None
  transform: Callable[[np.ndarray], np.ndarray] = np.asarray


class ConversionError(ValueError):
  """A checkpoint does not fit the model; names every mismatch."""


def transpose(x: np.ndarray) -> np.ndarray:
  """A linear layer's weight: (out, in) -> (in, out)."""
  return x.T


def patch_kernel(x: np.ndarray) -> np.ndarray:
  """A patch convolution (C, 3, p, p) -> a matrix (p * p * 3, C)."""
  return x.transpose(2, 3, 1, 0).reshape(-1, x.shape[0])


def add_batch_axis(x: np.ndarray) -> np.ndarray:
  """(M, C), or (1, M, C) as it is -> (1, M, C)."""
  return x if x.ndim == 3 else x[None]


def flatten(x: np.ndarray) -> np.ndarray:
  """To one axis: (h, 1, 1) -> (h,)."""
  return x.reshape(-1)


def convert(
  arrays: Mapping[str, np.ndarray],
  rules: Sequence[Rule],
  expected: Mapping[str, tuple[int, ...]],
  source: object,
) -> dict[str, np.ndarray]:
  """Applies a rule table to a checkpoint.

  Args:
    arrays: The checkpoint, key -> array.
    rules: The table; exactly one rule must match a key.
    expected: Path -> shape of every array of the model.
    source: What the checkpoint is (its file), for the error.

  Returns:
    Path -> float32 array, with exactly the paths of `expected`.

  Raises:
    ConversionError: Keys no rule knows, arrays missing or of another shape,
      or not finite; all named in one error.
  """
  result, problems = {}, []
  origin: dict[str, str] = {}
  for key, value in arrays.items():
    path, problem, transform = _match(key, rules)
    if problem:
      problems.append(problem)
    if path is None:
      continue
    if path in result:
      problems.append(f"{key} and {origin[path]} both go to {path}")
      continue
    result[path] = _to_float32(key, value, transform, problems)
    origin[path] = key
  problems += _compare(result, origin, expected)
  if problems:
    listing = "\n  ".join(problems)
    raise ConversionError(
      f"{source} does not fit the model asked for; "
      f"{len(problems)} mismatches:\n  {listing}\n"
      "Check that config.model.encoder names the variant the file holds."
    )
  return result


def convert_state(
  arrays: Mapping[str, np.ndarray],
  rules: Sequence[Rule],
  abstract_state: nnx.State,
  source: object,
) -> nnx.State:
  """Applies a rule table, giving the state of a module.

  Args:
    arrays: The checkpoint, key -> array.
    rules: The table.
    abstract_state: The module's state; only its shapes are used.
    source: What the checkpoint is (its file), for the error.

  Returns:
    A state of numpy float32 arrays.

  Raises:
    ConversionError: See `convert`.
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
  """Where a key goes; None if nowhere."""
  return _match(key, rules)[0]


def _match(key: str, rules: Sequence[Rule]):
  """Target path, problem and transform for a key; None where there is none."""
  matches = [(r, m) for r in rules if (m := re.fullmatch(r.pattern, key))]
  if not matches:
    return None, f"{key}: unknown key", None
  if len(matches) > 1:
    patterns = ", ".join(rule.pattern for rule, _ in matches)
    return None, f"{key}: several rules match ({patterns})", None
  rule, match = matches[0]
  target = None if rule.target is None else match.expand(rule.target)
  return target, None, rule.transform


def _to_float32(key, value, transform, problems: list[str]) -> np.ndarray:
  value = np.asarray(value)
  if not np.issubdtype(value.dtype, np.number):
    problems.append(f"{key}: holds {value.dtype}, not numbers")
    return np.zeros(value.shape, np.float32)
  value = value.astype(np.float32)
  if not np.isfinite(value).all():
    problems.append(f"{key}: has NaN or infinite values")
  try:
    return np.ascontiguousarray(transform(value))
  except ValueError:
    problems.append(f"{key}: unexpected shape {value.shape}")
    return value


def _compare(result, origin, expected) -> list[str]:
  """Problems: paths missing, left over, or of another shape."""
  problems = []
  for path, shape in expected.items():
    if path not in result:
      near = difflib.get_close_matches(path, set(result) - set(expected), 1)
      hint = f" (nearest: {origin[near[0]]})" if near else ""
      problems.append(f"{path}: missing{hint}")
    elif result[path].shape != tuple(shape):
      problems.append(
        f"{origin[path]}: shape {result[path].shape} as {path}, "
        f"expected {tuple(shape)}"
      )
  surplus = sorted(set(result) - set(expected))
  return problems + [f"{origin[p]}: the model has no {p}" for p in surplus]
