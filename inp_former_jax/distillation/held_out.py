"""Measures how much of the teacher a student explains, on held-out views."""

from collections.abc import Callable

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from inp_former_jax import sharding
from inp_former_jax.data import transforms
from inp_former_jax.distillation.student import standardise
from inp_former_jax.distillation.targets import CachedTargets
from inp_former_jax.distillation.views import SOURCES, Views
from inp_former_jax.models import placement

R2 = dict[str, dict[str, float]]  # by source of the views or "all", then group


class ExplainedVariance:
  """Accumulates the R2 of predictions, per group, over batches.

  R2 = 1 - sum |y - prediction|^2 / sum |y - mean(y)|^2, with sums over patches
  and standardised channels. A perfect student has 1, and a student that knows
  only the mean has 0.

  Attributes:
    count: Number of patches seen.
  """

  def __init__(self):
    """Starts without any patches."""
    self._error = self._sum = self._squares = 0.0
    self.count = 0

  def add(self, predicted: np.ndarray, target: np.ndarray) -> None:
    """Adds a batch of views.

    Args:
      predicted: Predictions, (B, 2, N, D).
      target: Standardised targets, (B, 2, N, D).
    """
    target = np.asarray(target, np.float64)
    self._error += np.square(predicted - target).sum(axis=(0, 2, 3))
    self._sum += target.sum(axis=(0, 2))
    self._squares += np.square(target).sum(axis=(0, 2, 3))
    self.count += target.shape[0] * target.shape[2]

  def result(self) -> np.ndarray:
    """Returns the R2 of the two groups, (2,)."""
    about_mean = self._squares - np.square(self._sum).sum(-1) / self.count
    return 1 - self._error / about_mean


def make_evaluation(
  graphdef: nnx.GraphDef,
  views: Views,
  targets: CachedTargets,
  statistics: tuple[np.ndarray, np.ndarray],
  mesh: Mesh,
  batch_size: int,
) -> Callable[[nnx.State], R2]:
  """Builds the function that measures a student on held-out views.

  Args:
    graphdef: Graph definition of a `Student`.
    views: The held-out views, which tell their sources.
    targets: The teacher's targets of these views.
    statistics: Mean and standard deviation of the training targets.
    mesh: The devices over which a batch is spread.
    batch_size: Number of views per batch, over all devices.

  Returns:
    A function from the student's state to the R2 of all views and of each
    source.
  """
  mean, deviation = statistics
  batch_sharding = sharding.batch_sharding(mesh)

  @jax.jit
  @placement.on_mesh(mesh)
  def predict(trainable, images):
    return nnx.merge(graphdef, trainable)(transforms.normalise(images))

  def evaluate(trainable: nnx.State) -> R2:
    seen = {name: ExplainedVariance() for name in ("all", *SOURCES)}
    for start in range(0, len(targets), batch_size):
      indices = range(start, min(start + batch_size, len(targets)))
      items = [targets[i] for i in indices]
      images = np.zeros((batch_size, *items[0]["image"].shape), np.uint8)
      images[: len(items)] = [item["image"] for item in items]
      images = sharding.to_global(images, batch_sharding)
      predicted = np.asarray(predict(trainable, images))
      for i, item, prediction in zip(indices, items, predicted, strict=False):
        target = np.asarray(standardise(item["groups"], mean, deviation))
        for name in ("all", views.source(i)):
          seen[name].add(prediction[None], target[None])
    return {
      name: {f"group{i}": float(r2) for i, r2 in enumerate(part.result())}
      for name, part in seen.items()
      if part.count
    }

  return evaluate


def require_finite(step: int, r2: R2) -> None:
  """Checks that a student may replace the one before it.

  Its parameters may be finite and yet so large that what it computes is not.

  Args:
    step: Number of steps taken so far, for the message.
    r2: The R2 by source and group.

  Raises:
    FloatingPointError: If a value is infinite or not a number.
  """
  if not all(
    np.isfinite(list(groups.values())).all() for groups in r2.values()
  ):
    raise FloatingPointError(
      f"The held-out R2 after step {step} is not finite, so the student is not "
      "written. Start again in another workdir, with a lower "
      "`peak_learning_rate` or in float32, `dtype`=float32."
    )


def format_table(r2: R2, title: str) -> str:
  """Formats the R2 of the groups as a table, with a line for each source.

  Args:
    r2: The R2 by source and group.
    title: Heading of the table.

  Returns:
    The lines of the table, joined.
  """
  lines = [f"{title:<28} group 0  group 1"]
  for name, groups in r2.items():
    values = "  ".join(f"{value:7.4f}" for value in groups.values())
    lines.append(f"  {name:<26} {values}")
  return "\n".join(lines)
