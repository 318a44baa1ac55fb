"""Compares values with reference arrays of the original implementation."""

import dataclasses
import pathlib
from collections.abc import Iterator

import numpy as np

from inp_former_jax.weights import files

# Largest differences allowed, in float32 at the highest matmul precision.
BLOCK = 1e-5  # output of one block or operator
ENCODER = 1e-4  # output of a stack of blocks
GRADIENT = 1e-4  # relative to a tensor's largest gradient
SCHEDULE = 1e-6  # learning rates, relative
TRAINING = 1e-4  # losses of a short training run, relative
NORM = 1e-2  # gradient norms of such a run, relative
FINAL = 1e-2  # parameters after it, relative to a tensor's largest value
EXACT_METRIC = 1e-6
STREAMING_METRIC = 1e-5  # against the exact metric


@dataclasses.dataclass(frozen=True)
class Result:
  """Result of comparing an array with its reference.

  Attributes:
    name: Names of the file and of the array.
    difference: Largest difference; nan if the shapes differ.
    tolerance: Largest difference allowed.
    relative: Whether difference and tolerance are relative to the largest
      reference value.
  """

  name: str
  difference: float
  tolerance: float
  relative: bool = False

  @property
  def ok(self) -> bool:
    """Whether the array is within its tolerance, which nan never is."""
    return self.difference <= self.tolerance

  def __str__(self) -> str:
    """Formats name, difference, tolerance and verdict on one line."""
    kind = "rel" if self.relative else "abs"
    verdict = "ok" if self.ok else "OFF"
    return (
      f"{self.name:<66} {kind} {self.difference:9.2e}  "
      f"tolerance {self.tolerance:.0e}  {verdict}"
    )


class Comparison:
  """Compares values with the arrays of a reference file.

  Attributes:
    path: Path of the reference file.
    reference: The reference arrays, by key.
    compared: Keys of the arrays that have been compared so far.
  """

  def __init__(self, path: pathlib.Path):
    """Reads a reference file.

    Args:
      path: Path of the `.npz` file.
    """
    self.path = path
    self.reference = dict(files.read_arrays(path))
    self.compared: set[str] = set()

  def __call__(
    self, key: str, value, tolerance: float, *, relative: bool = False
  ) -> Iterator[Result]:
    """Compares a value with a reference array, if the file holds it.

    Args:
      key: Key of the reference array.
      value: The value to compare, of the same shape.
      tolerance: Largest difference allowed.
      relative: Whether the difference is relative to the largest reference
        value.

    Yields:
      The result, if the file holds the array.
    """
    if key not in self.reference:
      return
    self.compared.add(key)
    reference = self.reference[key].astype(np.float64)
    value = np.asarray(value, np.float64)
    difference = float("nan")
    if value.shape == reference.shape:
      difference = float(np.max(np.abs(value - reference), initial=0.0))
      if relative:
        difference /= max(float(np.max(np.abs(reference))), 1e-12)
    name = f"{self.path.name}: {key}"
    yield Result(name, difference, tolerance, relative)


def channels_last(images: np.ndarray) -> np.ndarray:
  """Moves the channels of images last: (..., 3, H, W) -> (..., H, W, 3)."""
  return np.moveaxis(images, -3, -1)
