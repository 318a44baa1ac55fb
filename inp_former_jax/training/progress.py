"""Reports the progress of training: progress bar, JSONL log, TensorBoard."""

import json
import pathlib
import sys
import time
from collections.abc import Callable, Mapping
from typing import SupportsFloat, cast

import jax
import numpy as np
import optax
import rich.console
import rich.progress
import tensorboardX

from inp_former_jax.atomic import replacing
from inp_former_jax.processes import exchange
from inp_former_jax.terminal import escaped


def announce(text: str) -> None:
  """Prints what a run is doing, on the first process only.

  Args:
    text: A line for the user.
  """
  if jax.process_index() == 0:
    print(escaped(text), flush=True)


def warn(text: str) -> None:
  """Prints a warning to the standard error, on the first process only.

  Args:
    text: A line for the user. It stays out of the output of commands whose
      lines other programs read.
  """
  if jax.process_index() == 0:
    print(escaped(text), file=sys.stderr, flush=True)


class TrainingLog:
  """Logs a run every few steps, without waiting for the device in between.

  Writes an object per interval to `log.jsonl`, with the means over its steps,
  and TensorBoard events to `tensorboard/`. Shows a progress bar on a terminal,
  and prints lines elsewhere. Only the first process writes.

  Attributes:
    path: Path of the JSONL file.
  """

  def __init__(
    self,
    workdir: pathlib.Path,
    schedule: optax.Schedule,
    *,
    start: int,
    total: int,
    batch_size: int,
    every_steps: int,
    tensorboard: bool,
    compare_waits: Callable[[float, float], Mapping[str, float]] | None = None,
  ):
    """Opens the logs of a run.

    Args:
      workdir: Folder of the logs.
      schedule: Learning rate as a function of the step, counted from 0.
      start: Number of steps already taken; later lines of an interrupted run
        are deleted.
      total: Number of steps of the whole run.
      batch_size: Number of images per step, to compute images per second.
      every_steps: Number of steps between two lines of the log.
      tensorboard: Whether TensorBoard events are written as well.
      compare_waits: Function that compares the processes' waits for input at
        every line, `InputWaits.compare`.
    """
    self._compare_waits = compare_waits
    self.path = workdir / "log.jsonl"
    self._batch_size = batch_size
    self._every = max(1, every_steps)
    self._schedule = schedule
    self._total, self._start = total, start
    self._pending: list[Mapping[str, jax.Array]] = []
    self._writes = jax.process_index() == 0
    self._tensorboard = None
    if self._writes:
      _cut_log(self.path, start)
      if tensorboard:
        folder = str(workdir / "tensorboard")
        self._tensorboard = tensorboardX.SummaryWriter(
          folder, purge_step=start + 1
        )
    self._console = rich.console.Console()
    self._bar = rich.progress.Progress(
      *_columns(self._console.width),
      console=self._console,
      disable=not (self._writes and self._console.is_terminal),
    )
    self._task = self._bar.add_task("", total=total, completed=start, status="")

  def __enter__(self) -> "TrainingLog":
    """Starts the clock and the progress bar."""
    self._bar.start()
    self._time = self._began = time.perf_counter()
    self._last_step = self._start
    return self

  def __exit__(self, *exception) -> None:
    """Closes the progress bar and the files."""
    self._bar.stop()
    if self._tensorboard:
      self._tensorboard.close()

  def step(self, step: int, metrics: Mapping[str, jax.Array]) -> None:
    """Records a step, and writes the log at the end of an interval.

    Args:
      step: Number of steps taken so far.
      metrics: Scalar metrics of this step, still on the device.

    Raises:
      FloatingPointError: If the loss or the gradient's norm within the
        interval is not finite.
    """
    self._pending.append(metrics)
    self._last_step = step
    self._bar.update(self._task, completed=step)
    if step % self._every == 0 or step == self._total:
      self.flush()

  def flush(self) -> None:
    """Writes the means over the steps recorded since the last line.

    Raises:
      FloatingPointError: If the loss or the gradient's norm is not finite.
    """
    if not self._pending:
      return
    pending = jax.device_get(self._pending)
    now = time.perf_counter()
    line: dict[str, float] = {"step": self._last_step}
    for name in pending[0]:
      line[name] = float(np.mean([float(m[name]) for m in pending]))
    # optax's type of a schedule also allows complex numbers.
    learning_rate = cast(SupportsFloat, self._schedule(self._last_step - 1))
    line["learning_rate"] = float(learning_rate)
    rate = len(pending) * self._batch_size / max(now - self._time, 1e-9)
    line["images_per_second"] = round(rate, 2)
    seconds = now - self._time
    self._pending, self._time = [], now
    for name in ("loss", "gradient_norm"):
      if not np.isfinite(line.get(name, 0.0)):
        raise FloatingPointError(
          f"The {name} is {line[name]} within the steps up to "
          f"{self._last_step}. Start again in another workdir, with a lower "
          "`peak_learning_rate` or in float32, `dtype`=float32."
        )
    if self._compare_waits:
      line |= self._compare_waits(seconds, rate)
    self._write(line)

  def _write(self, line: Mapping[str, float]) -> None:
    if not self._writes:
      return
    self._append(line)
    status = _status(line)
    self._bar.update(self._task, status=status)
    if self._bar.disable:
      self._console.print(
        f"step {line['step']}/{self._total}  {status}  "
        f"{self._time_left()} left",
        highlight=False,
        soft_wrap=True,
      )

  def _append(self, line: Mapping[str, float]) -> None:
    with open(self.path, "a", encoding="utf-8") as file:
      file.write(json.dumps(line) + "\n")
    if self._tensorboard:
      for name, value in line.items():
        self._tensorboard.add_scalar(name, value, int(line["step"]))

  def _time_left(self) -> str:
    done = max(self._last_step - self._start, 1)
    elapsed = time.perf_counter() - self._began
    seconds = int(elapsed / done * (self._total - self._last_step))
    return f"{seconds // 3600}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"

  def evaluation(self, step: int, result) -> None:
    """Writes the mean metrics of an evaluation during training.

    Args:
      step: Number of steps taken so far.
      result: The evaluation, an `evaluation.results.Evaluation`.
    """
    defined = {k: v for k, v in result.mean.items() if np.isfinite(v)}
    line = {f"test/{name}": value for name, value in defined.items()}
    if self._writes:
      self._append({"step": step} | line)
      shown = "  ".join(f"{k} {v:.4f}" for k, v in defined.items())
      text = f"step {step}  {shown}"
      self._console.print(text, highlight=False, soft_wrap=True)
    self._time = time.perf_counter()

  def was_evaluated(self, step: int) -> bool:
    """Returns whether the log has an evaluation of a step.

    All processes must ask together; the first one, which writes the log, reads
    it for all.

    Args:
      step: Number of steps taken.
    """
    found = self._writes and _has_evaluation(self.path, step)
    return bool(exchange.gather_processes(np.array([found]))[0, 0])


def _columns(width: int) -> list[rich.progress.ProgressColumn]:
  """Returns the columns of the progress bar; a narrow terminal gets no bar."""
  return [
    *([rich.progress.BarColumn(12)] if width >= 100 else []),
    rich.progress.MofNCompleteColumn(),
    rich.progress.TextColumn("{task.fields[status]}"),
    rich.progress.TimeRemainingColumn(compact=True),
  ]


def _status(line: Mapping[str, float]) -> str:
  parts = [f"loss {line['loss']:.4f}"]
  if "coherence_loss" in line:
    parts.append(
      f"(mining {line['soft_mining_loss']:.4f}, "
      f"coherence {line['coherence_loss']:.4f})"
    )
  parts.append(f"lr {line['learning_rate']:.1e}")
  parts.append(f"{line['images_per_second']:.1f} img/s")
  if "input_wait_max" in line:
    parts.append(
      f"({line['images_per_second_per_process']:.1f} per process, input wait "
      f"{line['input_wait_max']:.0%})"
    )
  return " ".join(parts)


def _cut_log(path: pathlib.Path, start: int) -> None:
  """Deletes the lines that an interrupted run logged after its checkpoint."""
  if not path.exists():
    return
  kept = []
  for line in path.read_text(encoding="utf-8").splitlines():
    try:
      if json.loads(line)["step"] <= start:
        kept.append(line + "\n")
    except ValueError:  # the line whose writing was interrupted
      continue
  with replacing(path) as part:  # a signal may end the process meanwhile
    part.write_text("".join(kept), encoding="utf-8")


def _has_evaluation(path: pathlib.Path, step: int) -> bool:
  if not path.exists():
    return False
  lines = map(json.loads, path.read_text(encoding="utf-8").splitlines())
  # A step may have two lines; the one of its training has the loss.
  return any(line["step"] == step and "loss" not in line for line in lines)
