"""Reference arrays of the original implementation, and how far off we are."""

import dataclasses
import pathlib
from collections.abc import Iterator

import numpy as np

from inp_former_jax.weights import files

# Largest differences allowed, in float32 at the highest matmul precision.
BLOCK = 1e-5  # one block, one operator
ENCODER = 1e-4  # what runs through a stack of blocks
GRADIENT = 1e-4  # relative to a tensor's largest gradient
SCHEDULE = 1e-6  # relative, of learning rates
TRAINING = 1e-4  # relative, losses along a short training run
NORM = 1e-2  # relative, gradient norms along it
FINAL = 1e-2  # relative to a tensor's largest value, after it
EXACT_METRIC = 1e-6
STREAMING_METRIC = 1e-5  # against the exact metric


@dataclasses.dataclass(frozen=True)
class Result:
  """How far one array is off.

  Attributes:
    name: File and array.
    difference: Largest difference; nan if shapes differ.
    tolerance: Largest difference allowed.
    relative: Whether both are relative to the largest reference value.
  """

  name: str
  difference: float
  tolerance: float
  relative: bool = False

  @property
  def ok(self) -> bool:
    """Whether the array is within its tolerance; nan never is."""
    return self.difference <= self.tolerance

  def __str__(self) -> str:
    """One line: name, difference, tolerance, ok or OFF."""
    kind = "rel" if self.relative else "abs"
    verdict = "ok" if self.ok else "OFF"
    return (
      f"{self.name:<66} {kind} {self.difference:9.2e}  "
      f"tolerance {self.tolerance:.0e}  {verdict}"
    )


class Comparison:
  """Compares values with the arrays of one reference file."""

  def __init__(self, path: pathlib.Path):
    """Opens a `.npz` file."""
    self.path = path
    self.reference = dict(files.read_arrays(path))
    self.compared: set[str] = set()

  def __call__(
    self, key: str, value, tolerance: float, *, relative: bool = False
  ) -> Iterator[Result]:
    """Yields the result for one array, if the file holds it."""
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
  """(..., 3, H, W) -> (..., H, W, 3)."""
  return np.moveaxis(images, -3, -1)
