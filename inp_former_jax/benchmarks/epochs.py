"""Epochs of training as a run takes them: its input, cache, step and loop.

What a run does besides (checkpoints, evaluations, logs) is left out. The
encoder is random, because its values do not matter for the speed. Each setting
of the cache begins with an empty one, in a folder of its own that is deleted
afterwards, so the first epoch includes the filling of the cache. Compiling the
training step is not in the figures; compiling the encoder that fills a cache of
features is, within `preparing`.
"""

import dataclasses
import pathlib
import queue
import statistics
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from ml_collections import ConfigDict

from inp_former_jax import experiment, sharding, training_inputs
from inp_former_jax.benchmarks import compiling, steps
from inp_former_jax.data import loader
from inp_former_jax.data.cache_key import cache_folder
from inp_former_jax.data.records import Dataset
from inp_former_jax.field_names import naming_fields
from inp_former_jax.training import loop, model_state
from inp_former_jax.training.model_state import ModelState
from inp_former_jax.weights import pretrained

_IGNORED = loop.Hooks(
  log=lambda step, metrics: None,
  checkpoint=lambda step, state: None,
  evaluate=lambda step, state: None,
  was_evaluated=lambda step: True,
  is_save_due=lambda step: False,
  evaluate_every=0,
)


@dataclasses.dataclass(frozen=True)
class Epoch:
  """What one epoch took.

  Attributes:
    images: Number of images that were trained on.
    seconds: Seconds, without compiling the training step.
    waiting: Seconds of these in which the devices had nothing to do: the last
      step was done, and the next batch was not there.
  """

  images: int
  seconds: float
  waiting: float


@dataclasses.dataclass(frozen=True)
class TrainRun:
  """The epochs of a run with one setting of the cache.

  Attributes:
    cache: The value of `config.cache`.
    batch_size: Number of images in a batch.
    preparing: Seconds to compute features before the first step, which include
      compiling the encoder; part of the first epoch's seconds, and of its
      waiting.
    compile_seconds: Seconds to compile the training step.
    epochs: The epochs in turn.
  """

  cache: str
  batch_size: int
  preparing: float
  compile_seconds: float
  epochs: tuple[Epoch, ...]


@naming_fields()
def measure(
  config: ConfigDict, caches: Sequence[str], num_epochs: int
) -> list[TrainRun]:
  """Trains some epochs with each setting of the cache, one after another.

  Args:
    config: The config of a run, with its data set.
    caches: Values of `config.cache`.
    num_epochs: Number of epochs with each of them.

  Returns:
    What each setting took.

  Raises:
    DataError: If the data set cannot be read.
    ValueError: If a setting is unknown, or there are fewer than two epochs.
  """
  unknown = sorted(set(caches) - set(training_inputs.CACHES))
  if unknown or not caches:
    raise ValueError(
      f"--caches is {','.join(caches)!r}; expected some of "
      f"{', '.join(training_inputs.CACHES)}."
    )
  if num_epochs < 2:
    raise ValueError(f"--epochs is {num_epochs}; expected 2 or more.")
  mesh = sharding.make_mesh(**config.mesh)
  sharding.check_batch_size(mesh, config.batch_size)
  model = model_state.create(
    experiment.model_settings(config),
    mesh,
    encoder_weights=pretrained.RANDOM,
    seed=config.seed,
  )
  with tempfile.TemporaryDirectory() as folder:
    dataset = experiment.read_dataset(config, pathlib.Path(folder))
    return [
      _measure(config, cache, dataset, model, mesh, num_epochs)
      for cache in caches
    ]


def _measure(
  config: ConfigDict,
  cache: str,
  dataset: Dataset,
  model: ModelState,
  mesh: jax.sharding.Mesh,
  num_epochs: int,
) -> TrainRun:
  parent = cache_folder(config.cache_dir)
  parent.mkdir(parents=True, exist_ok=True)
  with tempfile.TemporaryDirectory(dir=parent, prefix="benchmark-") as folder:
    config = config.copy_and_resolve_references()
    config.cache, config.cache_dir = cache, folder
    inputs = training_inputs.training_inputs(
      config,
      dataset,
      experiment.preprocessing(config),
      mesh,
      pathlib.Path(folder),
    )
    try:
      return _train(config, inputs, dataset, model, mesh, num_epochs)
    finally:
      inputs.close()


def _train(
  config: ConfigDict,
  inputs: training_inputs.TrainingInputs,
  dataset: Dataset,
  model: ModelState,
  mesh: jax.sharding.Mesh,
  num_epochs: int,
) -> TrainRun:
  images = experiment.num_examples(config, len(dataset.train))
  num_steps = loader.steps_per_epoch(images, config.batch_size)
  stepper = _Stepper(config, model, mesh, inputs)
  state = stepper.initial()
  start = time.perf_counter()
  inputs.prepare(model)
  preparing = time.perf_counter() - start
  epochs = []
  for number in range(num_epochs):
    stepper.clock.start(preparing if number == 0 else 0.0)
    state = loop.run(
      stepper.step,
      state,
      inputs.batches,
      _IGNORED,
      mesh,
      start=0,
      total_steps=num_steps,
    )
    seconds, waiting = stepper.clock.stop()
    epochs.append(Epoch(num_steps * config.batch_size, seconds, waiting))
  stepper.clock.close()
  return TrainRun(
    cache=config.cache,
    batch_size=config.batch_size,
    preparing=preparing,
    compile_seconds=stepper.compile_seconds,
    epochs=tuple(epochs),
  )


class _Stepper:
  """The training step of a run, compiled when it is first needed.

  Attributes:
    clock: The clock that knows when the devices wait.
    compile_seconds: Seconds to compile it; the loader reads ahead meanwhile.
  """

  def __init__(
    self,
    config: ConfigDict,
    model: ModelState,
    mesh: jax.sharding.Mesh,
    inputs: training_inputs.TrainingInputs,
  ):
    self._recipe = steps.recipe(
      config, model.graphdef, model.abstract_trainable, mesh
    )
    self._model, self._inputs = model, inputs
    self._program: compiling.Program | None = None
    self.compile_seconds = 0.0
    self.clock = Clock()

  def initial(self) -> Any:
    """Returns the initial training state."""
    return self._recipe.initialise(self._model.initial_trainable())

  def step(self, state: Any, batch: Mapping[str, jax.Array]) -> Any:
    """Takes a step, for `loop.run`."""
    start = time.perf_counter()  # an encoder of its own is compiled as well
    frozen, arguments = self._model.frozen, self._inputs.arguments(batch)
    if self._program is None:
      self._program = compiling.compile_anew(
        self._recipe.step, state, frozen, **arguments
      )
      self.compile_seconds = time.perf_counter() - start
      self.clock.leave_out(self.compile_seconds)
    self.clock.begins()
    state, metrics = self._program.run(state, frozen, **arguments)
    self.clock.ends_with(metrics)
    return state, metrics


class Clock:
  """Measures how long the devices wait for the next step.

  A thread waits for the end of every step, so that the loop need not.
  """

  def __init__(self):
    """Starts the thread."""
    self._results: queue.Queue[Any] = queue.Queue()
    self._begun: list[float] = []
    self._ended: list[float] = []
    self._start = 0.0
    self._extra = 0.0
    self._thread = threading.Thread(target=self._follow, daemon=True)
    self._thread.start()

  def _follow(self) -> None:
    while (result := self._results.get()) is not None:
      try:
        jax.block_until_ready(result)
      finally:
        self._ended.append(time.perf_counter())
        self._results.task_done()

  def start(self, extra: float = 0.0) -> None:
    """Starts an epoch.

    Args:
      extra: Seconds of waiting before it that belong to it.
    """
    self._begun, self._ended, self._extra = [], [], extra
    self._start = time.perf_counter()

  def leave_out(self, seconds: float) -> None:
    """Leaves so many seconds of waiting out of the epoch."""
    self._extra -= seconds

  def begins(self) -> None:
    """Notes that a step is given to the devices."""
    self._begun.append(time.perf_counter())

  def ends_with(self, result: Any) -> None:
    """Notes when the last step ends: when its results are there."""
    self._results.put(result)

  def stop(self) -> tuple[float, float]:
    """Waits for the last step; returns the epoch's seconds, and the waiting."""
    self._results.join()
    free = [self._start, *self._ended[:-1]]
    waits = (
      max(0.0, begun - since)
      for begun, since in zip(self._begun, free, strict=True)
    )
    seconds = self._ended[-1] - self._start
    return seconds + self._extra, sum(waits) + self._extra

  def close(self) -> None:
    """Ends the thread."""
    self._results.put(None)
    self._thread.join()


def format_table(runs: Sequence[TrainRun]) -> str:
  """Formats the results.

  Args:
    runs: What `measure` returned.
  """
  lines = [
    "epochs of training; waiting: share of the time in which the device waits "
    "for input",
    f"{'cache':<10}{'epoch':>6}{'images':>8}{'images/s':>10}{'seconds':>9}"
    f"{'waiting':>9}{'preparing':>11}{'compiled':>10}",
  ]
  for run in runs:
    for number, epoch in enumerate(run.epochs, 1):
      once = f"{run.preparing:>9.1f} s{run.compile_seconds:>8.1f} s"
      lines.append(
        f"{run.cache:<10}{number:>6}{epoch.images:>8}"
        f"{epoch.images / epoch.seconds:>10.2f}{epoch.seconds:>9.2f}"
        f"{epoch.waiting / epoch.seconds:>9.1%}{once if number == 1 else ''}"
      )
  later = {run.cache: _later(run) for run in runs}
  if training_inputs.OFF in later:
    for cache, rate in later.items():
      if cache != training_inputs.OFF:
        ratio = rate / later[training_inputs.OFF]
        lines.append(
          f"{cache}: {ratio:.2f} times as many images/s as without a cache, "
          "from the second epoch on (medians)"
        )
  return "\n".join(lines)


def _later(run: TrainRun) -> float:
  """Returns the median images/s from the second epoch on."""
  return statistics.median(e.images / e.seconds for e in run.epochs[1:])
