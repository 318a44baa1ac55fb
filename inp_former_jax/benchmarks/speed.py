"""The speed of prediction and of the training step, without reading images."""

import dataclasses
import time
from collections.abc import Callable, Collection, Sequence

import jax
import numpy as np
from ml_collections import ConfigDict

from inp_former_jax import experiment, sharding
from inp_former_jax.inference.trained import TrainedModel
from inp_former_jax.training.train_step import make_train_step

PREDICT, TRAIN = "predict", "train"
WORKS = (PREDICT, TRAIN)


@dataclasses.dataclass(frozen=True)
class Speed:
  """Speed of one kind of work with one encoder.

  Attributes:
    encoder: Name of the encoder.
    work: Kind of work: PREDICT (image in, map and score out) or TRAIN (a step).
    images_per_second: Images per second, one value for each round.
    compile_seconds: Seconds that the first call took, which compiles.
  """

  encoder: str
  work: str
  images_per_second: tuple[float, ...]
  compile_seconds: float


def measure(
  config: ConfigDict,
  models: Sequence[TrainedModel],
  works: Collection[str] = WORKS,
  *,
  rounds: int,
  seconds: float,
) -> list[Speed]:
  """Times every kind of work with every model.

  Every round takes all measurements in turn, so that a slow minute of the
  machine slows all of them.

  Args:
    config: The config of a run; batch size, loss and optimizer are read.
    models: The models, which share the sizes of their images.
    works: Kinds of work, of WORKS.
    rounds: Number of times that everything is measured.
    seconds: Shortest duration of a measurement in seconds.

  Returns:
    The speed of every kind of work with every encoder.
  """
  sizes = models[0].preprocessing
  assert sizes is not None
  shape = (config.batch_size, *sizes.crop, 3)
  images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
  place = sharding.batch_sharding(models[0].mesh)
  images = sharding.to_global(images, place)
  calls, compile_seconds = {}, {}
  for model in models:
    for work, call in _calls(config, model, images, works).items():
      key = model.settings.encoder, work
      start = time.perf_counter()
      call()
      compile_seconds[key] = time.perf_counter() - start
      call()
      calls[key] = call
  rates = {key: [] for key in calls}
  for _ in range(rounds):
    for key, call in calls.items():
      rates[key].append(config.batch_size * _calls_per_second(call, seconds))
  return [
    Speed(encoder, work, tuple(values), compile_seconds[encoder, work])
    for (encoder, work), values in rates.items()
  ]


def _calls(
  config: ConfigDict,
  model: TrainedModel,
  images: jax.Array,
  works: Collection[str],
) -> dict[str, Callable[[], None]]:
  """Returns, by kind of work, a function that does it once and waits for it."""

  def predict() -> None:
    jax.block_until_ready(model.predict(images))

  calls = {}
  if PREDICT in works:
    calls[PREDICT] = predict
  if TRAIN in works:
    calls[TRAIN] = _training(config, model, images)
  return calls


def _training(
  config: ConfigDict, model: TrainedModel, images: jax.Array
) -> Callable[[], None]:
  optimizer = experiment.make_optimizer(
    config, experiment.make_schedule(config, 1000)
  )
  train_step = jax.jit(
    make_train_step(model.graphdef, optimizer, **config.loss), donate_argnums=0
  )
  copy = jax.tree.map(lambda x: x.copy(), model.trainable)
  state = [(copy, optimizer.init(copy))]

  def train() -> None:
    state[0], metrics = train_step(state[0], model.frozen, images)
    jax.block_until_ready(metrics)

  return train


def _calls_per_second(call: Callable[[], None], seconds: float) -> float:
  count, start = 0, time.perf_counter()
  while (elapsed := time.perf_counter() - start) < seconds or count == 0:
    call()
    count += 1
  return count / elapsed


def format_table(speeds: Sequence[Speed]) -> str:
  """Formats the results.

  Args:
    speeds: The speeds that `measure` returned.
  """
  lines = [
    f"{'encoder':<24}{'work':<9}{'images/s':>9}  {'min - max':<16}"
    f"{'first call':>10}",
  ]
  for speed in speeds:
    rates = speed.images_per_second
    spread = f"{min(rates):.2f} - {max(rates):.2f}"
    lines.append(
      f"{speed.encoder:<24}{speed.work:<9}{np.median(rates):>9.2f}  "
      f"{spread:<16}{speed.compile_seconds:>8.1f} s"
    )
  return "\n".join(lines)
