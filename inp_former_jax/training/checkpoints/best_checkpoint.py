"""Keeps the best checkpoint of a run by a metric, beside the newest ones."""

import json
import math
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax

from inp_former_jax.atomic import write_json
from inp_former_jax.training.identity import CheckpointError

NAME = "best.json"  # in the workdir


class BestCheckpoint:
  """The values of a metric at the evaluations of a run, noted in `best.json`.

  As a preservation policy of orbax, it preserves the checkpoint with the
  highest value; of equal ones, the earliest.
  """

  def __init__(self, workdir: pathlib.Path, metric: str):
    """Reads the values that the run has noted so far.

    Args:
      workdir: Folder of the run.
      metric: Name of the metric. Values of another one are forgotten.
    """
    self._path = workdir / NAME
    self._metric = metric
    self._values: dict[int, float] = {}
    if self._path.exists():
      noted, values = _read(self._path)
      self._values = values if noted == metric else {}

  def note(self, step: int, metrics: Mapping[str, float]) -> None:
    """Notes the value of a checkpoint; one that is undefined is passed over.

    Args:
      step: Step of the checkpoint, which is saved.
      metrics: The mean metrics of its evaluation, equal on all processes.
    """
    value = metrics.get(self._metric, math.nan)
    if not math.isfinite(value):
      return
    self._values[step] = value
    self._write()

  def forget_after(self, step: int) -> None:
    """Forgets the values of steps that a resumed run takes again.

    Args:
      step: The step from which the run resumes.
    """
    self._values = {s: v for s, v in self._values.items() if s <= step}
    self._write()

  def _write(self) -> None:
    if jax.process_index() != 0:
      return
    write_json(self._path, {"metric": self._metric, "values": self._values})

  def should_preserve(
    self, checkpoints: Sequence[Any], *, context: Any
  ) -> Sequence[bool]:
    """Tells orbax which checkpoints to preserve: the best one.

    Args:
      checkpoints: The checkpoints that there are.
      context: What else orbax knows; it is not used.
    """
    ranked = _ranked(self._values, (c.step for c in checkpoints))
    return [c.step in ranked[:1] for c in checkpoints]


def ranked_steps(workdir: pathlib.Path, steps: Iterable[int]) -> list[int]:
  """Returns the steps of evaluated checkpoints, the best one first.

  Args:
    workdir: Folder of a run.
    steps: Steps of the checkpoints that there are.

  Raises:
    CheckpointError: If the run has noted no value of any of them.
  """
  path = workdir / NAME
  values = _read(path)[1] if path.exists() else {}
  found = _ranked(values, steps)
  if not found:
    raise CheckpointError(
      f"{path} names no checkpoint of this run, so that none is the best. "
      "Train with `best`=METRIC, or take the newest one."
    )
  return found


def _ranked(values: dict[int, float], steps: Iterable[int]) -> list[int]:
  evaluated = sorted(step for step in steps if step in values)
  return sorted(evaluated, key=lambda step: -values[step])


def _read(path: pathlib.Path) -> tuple[str, dict[int, float]]:
  try:
    content = json.loads(path.read_text(encoding="utf-8"))
    values = {int(s): float(v) for s, v in content["values"].items()}
    return str(content["metric"]), values
  except (ValueError, TypeError, KeyError, AttributeError) as error:
    raise CheckpointError(
      f"{path} cannot be read ({error}). Remove it; the run notes the values "
      "again from its next evaluation on."
    ) from error
