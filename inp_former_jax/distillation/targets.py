"""The teacher's groups for every view, computed once and kept on disk."""

import dataclasses
import json
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np

from inp_former_jax.atomic import write_json
from inp_former_jax.distillation.views import Views
from inp_former_jax.training.checkpoints.checkpoint import CheckpointError

_IMAGES, _GROUPS, _RECORD = "images.npy", "groups.npy", "record.json"


@dataclasses.dataclass(frozen=True)
class CachedTargets:
  """Random access to views and the teacher's groups for them.

  Several worker processes may use the same instance.

  Attributes:
    folder: Folder of the arrays.
    count: Number of views.
  """

  folder: pathlib.Path
  count: int

  def __len__(self) -> int:
    """Returns the number of views."""
    return self.count

  def __getitem__(self, index: int) -> dict[str, np.ndarray]:
    """Returns the `image` and the `groups` of a view.

    Args:
      index: Index of the view, in [0, count).

    Returns:
      A dict of `image`, (S, S, 3) uint8, and `groups`, (2, N, C) float16.
    """
    # The files are opened at each access, because pickling a memory map would
    # copy all its content.
    images, groups = self._open("r")
    return {
      "image": np.array(images[index]),
      "groups": np.array(groups[index]),
    }

  def _open(self, mode: Literal["r", "r+"]) -> tuple[np.memmap, np.memmap]:
    images = np.load(self.folder / _IMAGES, mmap_mode=mode)
    return images, np.load(self.folder / _GROUPS, mmap_mode=mode)

  def statistics(self) -> tuple[np.ndarray, np.ndarray]:
    """Computes mean and standard deviation per group and channel.

    Returns:
      The means and the standard deviations, each (2, 1, C) float32.
    """
    _, groups = self._open("r")
    _, num_groups, _, channels = groups.shape
    total, squares = np.zeros((2, num_groups, channels))
    tokens = 0
    for start in range(0, self.count, 64):
      part = groups[start : start + 64].astype(np.float64)
      total += part.sum(axis=(0, 2))
      squares += np.square(part).sum(axis=(0, 2))
      tokens += part.shape[0] * part.shape[2]
    mean = total / tokens
    deviation = np.sqrt(np.maximum(squares / tokens - mean**2, 1e-12))
    return (
      mean[:, None].astype(np.float32),
      deviation[:, None].astype(np.float32),
    )


def compute_targets(
  views: Views,
  teacher: Callable[[np.ndarray], np.ndarray],
  folder: pathlib.Path,
  identity: Mapping[str, Any],
  *,
  batch_size: int,
  shapes: tuple[tuple[int, ...], tuple[int, ...]],
  report: Callable[[int], None],
) -> CachedTargets:
  """Computes the targets of a split, resuming an interrupted computation.

  Args:
    views: All views of the split.
    teacher: Function from views, (B, S, S, 3) uint8, to the teacher's groups,
      (B, 2, N, C), where B is `batch_size`.
    folder: Folder for the arrays.
    identity: Everything that decides the views and the targets, fit for JSON.
    batch_size: Number of views per call of the teacher.
    shapes: Shape of a view, and shape of its groups.
    report: Function called with the number of views done so far.

  Returns:
    The targets.

  Raises:
    CheckpointError: If the folder holds targets of other views or of another
      teacher.
    DataError: If an image cannot be read.
  """
  folder.mkdir(parents=True, exist_ok=True)
  done = _read_progress(folder, identity)
  targets = CachedTargets(folder, len(views))
  if done == 0:
    for name, shape, dtype in zip(
      (_IMAGES, _GROUPS), shapes, (np.uint8, np.float16), strict=True
    ):
      np.lib.format.open_memmap(
        folder / name, "w+", dtype, (len(views), *shape)
      )
  images, groups = targets._open("r+")
  while done < len(views):
    report(done)
    end = min(done + batch_size, len(views))
    batch = np.zeros((batch_size, *shapes[0]), np.uint8)
    for place, index in enumerate(range(done, end)):
      batch[place] = views[index]
    images[done:end] = batch[: end - done]
    groups[done:end] = teacher(batch)[: end - done]
    done = end
    if done == len(views) or done // batch_size % 8 == 0:
      images.flush()
      groups.flush()
      _write_progress(folder, identity, done)
  report(done)
  return targets


def _read_progress(folder: pathlib.Path, identity: Mapping[str, Any]) -> int:
  path = folder / _RECORD
  if not path.exists():
    return 0
  record = json.loads(path.read_text(encoding="utf-8"))
  expected = json.loads(json.dumps(identity))
  if record["identity"] != expected:
    differing = ", ".join(
      f"{k}: {record['identity'].get(k)!r} there, {v!r} here"
      for k, v in expected.items()
      if record["identity"].get(k) != v
    )
    raise CheckpointError(
      f"{folder} holds targets of other views or another teacher "
      f"({differing}). Use these values again, remove the folder, or choose "
      "another workdir."
    )
  return record["done"]


def _write_progress(
  folder: pathlib.Path, identity: Mapping[str, Any], done: int
) -> None:
  write_json(folder / _RECORD, {"identity": dict(identity), "done": done})
