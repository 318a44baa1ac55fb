"""Measures speed and memory, for several encoders at once.

python -m inp_former_jax.benchmark --config=configs/demo.py \
  --encoders=demo_vit_tiny_14,dinov2_vit_small_14
python -m inp_former_jax.benchmark --config=configs/demo.py --work=stream \
  --work=tile

The kinds of work are predict (image in, map and score out), train (a step of
training), stream (many small files, one after another) and tile (one large
file in tiles); the first two are measured without reading files. The models are
random, because neither speed nor memory depends on the values; --workdir=DIR
takes the model of a run instead, with its image size and dtype.
Every round takes all measurements in turn, so that a slow minute of the machine
slows all of them. Compare ratios within one run rather than different runs.
"""

import os
import platform

import jax
from absl import flags
from ml_collections import ConfigDict

from inp_former_jax import command_line
from inp_former_jax.benchmarks import models, pictures, speed


def main(argv: list[str]) -> None:
  """Measures what the flags ask for, and prints it.

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
  measured = models.load(config, encoders, _WORKDIR.value)
  device = jax.devices()[0]
  print(
    f"{jax.device_count()} x {device.device_kind} ({platform.machine()}, "
    f"{os.cpu_count()} cores), jax {jax.__version__}, batch {config.batch_size}"
  )
  calls = [work for work in _WORK.value if work in speed.WORKS]
  if calls:
    speeds = speed.measure(
      config, measured, calls, rounds=_ROUNDS.value, seconds=_SECONDS.value
    )
    print(speed.format_table(speeds))
  runs = []
  for model in measured:
    if pictures.STREAM in _WORK.value:
      runs.append(pictures.stream(config, model, _IMAGES.value))
    if pictures.TILE in _WORK.value:
      width, height = _numbers("picture", _PICTURE.value, "x", 2)
      tile = _numbers("tile", _TILE.value, ",", 3)
      runs.append(
        pictures.tile(
          config,
          model,
          (height, width),
          (tile[0], tile[1], tile[2]),
          rounds=_ROUNDS.value,
        )
      )
  if runs:
    print(pictures.format_table(runs))


def _numbers(flag: str, text: str, separator: str, count: int) -> list[int]:
  numbers = text.split(separator)
  if len(numbers) != count or not all(n.isdecimal() for n in numbers):
    example = {"picture": "4000x3000", "tile": "1024,1024,256"}[flag]
    raise ValueError(
      f"--{flag} is {text!r}; expected {count} whole numbers, as in {example}."
    )
  return [int(number) for number in numbers]


if __name__ == "__main__":
  _CONFIG = command_line.define_config()
  flags.adopt_module_key_flags(command_line)
  _ENCODERS = flags.DEFINE_list(
    "encoders", [], "Names of encoders; by default that of the config."
  )
  _WORKDIR = flags.DEFINE_string(
    "workdir", "", "Folder of a run whose model is measured instead."
  )
  _WORK = flags.DEFINE_multi_enum(
    "work",
    list(speed.WORKS),
    [*speed.WORKS, *pictures.WORKS],
    "Kind of work to measure; may be given several times.",
  )
  _IMAGES = flags.DEFINE_integer(
    "images", 10_000, "stream: number of images.", pictures.PARTS
  )
  _PICTURE = flags.DEFINE_string(
    "picture", "4000x3000", "tile: width and height of the picture in pixels."
  )
  _TILE = flags.DEFINE_string(
    "tile", "1024,1024,256", "tile: height, width and overlap in pixels."
  )
  _ROUNDS = flags.DEFINE_integer("rounds", 5, "Number of rounds to measure.", 1)
  _SECONDS = flags.DEFINE_float(
    "seconds", 3.0, "Seconds that a measurement takes at least."
  )
  command_line.run(main, example="demo")
