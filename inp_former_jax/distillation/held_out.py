"""How much of the teacher a student explains, on views it never saw."""

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

R2 = dict[str, dict[str, float]]  # "all" or source of the views -> group -> R2


class ExplainedVariance:
  """R2 of predictions, per group, added up over batches.

  R2 = 1 - sum |y - prediction|^2 / sum |y - mean(y)|^2, sums over patches and
  standardised channels: 1 is a perfect student, 0 one that knows the mean.

  Attributes:
    count: Patches seen.
  """

  def __init__(self):
    """Starts with nothing seen."""
    self._error = self._sum = self._squares = 0.0
    self.count = 0

  def add(self, predicted: np.ndarray, target: np.ndarray) -> None:
    """Adds views.

    Args:
      predicted: (B, 2, N, D).
      target: (B, 2, N, D), standardised.
    """
    target = np.asarray(target, np.float64)
    self._error += np.square(predicted - target).sum(axis=(0, 2, 3))
    self._sum += target.sum(axis=(0, 2))
    self._squares += np.square(target).sum(axis=(0, 2, 3))
    self.count += target.shape[0] * target.shape[2]

  def result(self) -> np.ndarray:
    """R2 of the two groups, (2,)."""
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
  """Builds the measurement.

  Args:
    graphdef: Of a `Student`.
    views: The held-out ones; they tell the sources.
    targets: Of these views.
    statistics: Mean and deviation of the training targets.
    mesh: A batch is spread over all its devices.
    batch_size: Views per batch, over all devices.

  Returns:
    A function: state of the student -> R2 of all views and by source.
  """
  mean, deviation = statistics
  batch_sharding = sharding.batch_sharding(mesh)

  @jax.jit
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


def format_table(r2: R2, title: str) -> str:
  """R2 of the groups, a line for each source."""
  lines = [f"{title:<28} group 0  group 1"]
  for name, groups in r2.items():
    values = "  ".join(f"{value:7.4f}" for value in groups.values())
    lines.append(f"  {name:<26} {values}")
  return "\n".join(lines)
