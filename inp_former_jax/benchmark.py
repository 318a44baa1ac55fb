"""Measures the speed of prediction and training, for several encoders at once.

python -m inp_former_jax.benchmark --config=configs/demo.py \
  --encoders=demo_vit_tiny_14,dinov2_vit_small_14

The models are random, because speed does not depend on the values;
--workdir=DIR takes the model of a run instead, with its image size and dtype.
Every round takes all measurements in turn, so that a slow minute of the machine
slows all of them. Compare ratios within one run rather than different runs.
"""

import dataclasses
import os
import platform
import time
from collections.abc import Callable, Sequence

import jax
import numpy as np
from absl import flags
from jax.sharding import Mesh
from ml_collections import ConfigDict

from inp_former_jax import command_line, experiment, sharding
from inp_former_jax.field_names import naming_fields
from inp_former_jax.inference import trained
from inp_former_jax.inference.trained import TrainedModel
from inp_former_jax.training import model_state
from inp_former_jax.training.train_step import make_train_step
from inp_former_jax.weights import pretrained

PREDICT, TRAIN = "predict", "train"


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


@naming_fields()
def measure(
  config: ConfigDict,
  encoders: Sequence[str],
  *,
  rounds: int,
  seconds: float,
  workdir: str = "",
) -> list[Speed]:
  """Times both kinds of work for every encoder.

  Args:
    config: The config of a run; sizes, dtype, batch size and mesh are read.
    encoders: Names of the encoders. Their models are initialised at random.
    rounds: Number of times that everything is measured.
    seconds: Shortest duration of a measurement in seconds.
    workdir: Folder of a run whose model is measured instead of those of
      `encoders`, or "".

  Returns:
    The speed of every kind of work with every encoder.

  Raises:
    ValueError: If an encoder is unknown, or if the number of devices does not
      divide the batch.
    CheckpointError: If the workdir has no checkpoint that can be read.
  """
  mesh = sharding.make_mesh(**config.mesh)
  sharding.check_batch_size(mesh, config.batch_size)
  if workdir:
    models = [trained.load(workdir, mesh)]
  else:
    models = [_initialise(config, encoder, mesh) for encoder in encoders]
  sizes = models[0].preprocessing or experiment.preprocessing(config)
  shape = (config.batch_size, *sizes.crop, 3)
  images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
  images = sharding.to_global(images, sharding.batch_sharding(mesh))
  calls, compile_seconds = {}, {}
  for model in models:
    for work, call in _calls(config, model, images).items():
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


def _initialise(config: ConfigDict, encoder: str, mesh: Mesh) -> TrainedModel:
  settings = dataclasses.replace(
    experiment.model_settings(config), encoder=encoder
  )
  state = model_state.create(
    settings, mesh, encoder_weights=pretrained.RANDOM, seed=config.seed
  )
  return trained.from_state(
    state,
    state.initial_trainable(),
    mesh,
    size=config.evaluation.size,
    top_fraction=config.evaluation.top_fraction,
  )


def _calls(
  config: ConfigDict, model: TrainedModel, images: jax.Array
) -> dict[str, Callable[[], None]]:
  """Returns, by kind of work, a function that does it once and waits for it."""
  optimizer = experiment.make_optimizer(
    config, experiment.make_schedule(config, 1000)
  )
  train_step = jax.jit(
    make_train_step(model.graphdef, optimizer, **config.loss), donate_argnums=0
  )
  copy = jax.tree.map(lambda x: x.copy(), model.trainable)
  state = [(copy, optimizer.init(copy))]

  def predict() -> None:
    jax.block_until_ready(model.predict(images))

  def train() -> None:
    state[0], metrics = train_step(state[0], model.frozen, images)
    jax.block_until_ready(metrics)

  return {PREDICT: predict, TRAIN: train}


def _calls_per_second(call: Callable[[], None], seconds: float) -> float:
  count, start = 0, time.perf_counter()
  while (elapsed := time.perf_counter() - start) < seconds or count == 0:
    call()
    count += 1
  return count / elapsed


def format_table(speeds: Sequence[Speed], batch_size: int) -> str:
  """Formats the results, with a description of the machine.

  Args:
    speeds: The speeds that `measure` returned.
    batch_size: Number of images per call.
  """
  device = jax.devices()[0]
  lines = [
    f"{jax.device_count()} x {device.device_kind} ({platform.machine()}, "
    f"{os.cpu_count()} cores), jax {jax.__version__}, batch {batch_size}",
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


def main(argv: list[str]) -> None:
  """Measures the speeds and prints them.

  Args:
    argv: The arguments that are not flags; expected to be the program alone.
  """
  command_line.start(argv)
  command_line.call(_run, _CONFIG.value)


def _run(config: ConfigDict) -> None:
  if _ENCODERS.value and _WORKDIR.value:
    raise ValueError(
      "--encoders measures random models, and --workdir the model of a run: "
      "give one of them."
    )
  encoders = _ENCODERS.value or [config.model.encoder]
  speeds = measure(
    config,
    encoders,
    rounds=_ROUNDS.value,
    seconds=_SECONDS.value,
    workdir=_WORKDIR.value,
  )
  print(format_table(speeds, config.batch_size))


if __name__ == "__main__":
  _CONFIG = command_line.define_config()
  flags.adopt_module_key_flags(command_line)
  _ENCODERS = flags.DEFINE_list(
    "encoders", [], "Names of encoders; by default that of the config."
  )
  _WORKDIR = flags.DEFINE_string(
    "workdir", "", "Folder of a run whose model is measured instead."
  )
  _ROUNDS = flags.DEFINE_integer("rounds", 5, "Number of rounds to measure.", 1)
  _SECONDS = flags.DEFINE_float(
    "seconds", 3.0, "Seconds that a measurement takes at least."
  )
  command_line.run(main, example="demo")
