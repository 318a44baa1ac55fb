"""Measures speed and memory: python -m inp_former_jax.benchmark [WORK ...].

python -m inp_former_jax.benchmark predict step --config=configs/demo.py \
  --encoders=demo_vit_tiny_14,dinov2_vit_small_14
python -m inp_former_jax.benchmark stream tile --config=configs/demo.py

The kinds of work, by default predict and step:

predict  image in, map and score out; images are not read from files
step     a training step; also with the encoder's features given (cached)
cached   the latter alone
train    epochs on the config's data set, with each cache of --caches
data     the input alone: images/s decoded, and from the cache of images
metrics  the evaluation's metrics of --maps maps of --categories categories
stream   many small files, one after another, with --images
tile     a large file in tiles, with --picture and --tile

predict and step are compared with a floor: the shortest time that the rates of
a matrix product and of a copy allow, measured in the same rounds. Compiling is
measured without a cache. The models are random, because neither speed nor
memory depends on the values; --workdir=DIR takes the model of a run instead,
with its image size and dtype. --batch_sizes and --crops measure how predict and
step grow; --versus=torch times the encoder's blocks in PyTorch beside.
Every round takes all measurements in turn, so that a slow minute of the machine
slows all of them. Compare ratios within one run rather than different runs.
"""

import pathlib
from collections.abc import Sequence
from typing import Any

from absl import flags
from ml_collections import ConfigDict

from inp_former_jax import (
  command_line,
  field_ranges,
  freed_memory,
  training_inputs,
)
from inp_former_jax.atomic import write_json
from inp_former_jax.benchmarks import (
  data,
  epochs,
  growth,
  maps,
  models,
  pictures,
  record,
  speed,
  speed_table,
  steps,
  tracing,
  versus_torch,
)
from inp_former_jax.inference.trained import TrainedModel

TRAIN, DATA, METRICS = "train", "data", "metrics"
WORKS = (*steps.WORKS, TRAIN, DATA, METRICS, *pictures.WORKS)
_DEFAULT = (steps.PREDICT, steps.STEP)
_STREAM_IMAGES, _DATA_IMAGES = 10_000, 32
_OF_MODELS = (*steps.WORKS, *pictures.WORKS)


def main(argv: list[str]) -> None:
  """Measures what the arguments ask for, and prints it.

  Args:
    argv: The program, and the kinds of work.
  """
  command_line.start(argv[:1])
  command_line.call(_run, _CONFIG.value, argv[1:])


def _run(config: ConfigDict, words: Sequence[str]) -> None:
  field_ranges.check_fields(config)
  works = _works(words)
  _check_flags(works)
  if set(works) & {*steps.WORKS, TRAIN}:
    freed_memory.keep()  # as the command that trains does
  found: dict[str, Any] = {
    "machine": record.machine(),
    "works": works,
    "config": config.to_dict(),
  }
  print(_describe(config, found["machine"]), flush=True)
  if set(works) & set(_OF_MODELS):
    encoders = _ENCODERS.value or [config.model.encoder]
    measured = models.load(config, encoders, _WORKDIR.value)
    found["dtype"] = measured[0].settings.dtype
    if set(works) & set(steps.WORKS):
      found |= _speeds(config, measured, works)
    found |= _pictures(config, measured, works)
    _save(found)
  for work, measure in _OTHERS.items():
    if work in works:
      found[work] = measure(config)
      _save(found)


def _save(found: dict[str, Any]) -> None:
  """Writes what has been found so far, should a later work fail."""
  if _JSON.value:
    write_json(_JSON.value, found)


def _works(words: Sequence[str]) -> list[str]:
  unknown = [word for word in words if word not in WORKS]
  if unknown:
    raise ValueError(
      f"There is no work {unknown[0]!r}; the works are {', '.join(WORKS)}."
    )
  return list(dict.fromkeys(words or _DEFAULT))


def _check_flags(works: Sequence[str]) -> None:
  """Reports what cannot be done before anything is measured."""
  if _ENCODERS.value and _WORKDIR.value:
    raise ValueError(
      "--encoders measures random models, and --workdir the model of a run: "
      "give one of them."
    )
  if not set(works) & set(steps.WORKS):
    for flag in (_PROFILE, _VERSUS, _BATCH_SIZES, _CROPS):
      if flag.value:
        raise ValueError(
          f"--{flag.name} belongs to {', '.join(steps.WORKS)}; name one of "
          "them as well."
        )
  if _VERSUS.value:
    versus_torch.require_torch()


def _describe(config: ConfigDict, machine: dict[str, Any]) -> str:
  return (
    f"{machine['num_devices']} x {machine['device']} ({machine['processor']}, "
    f"{machine['cores']} cores), jax {machine['jax']}, batch "
    f"{config.batch_size}, {machine['date']}"
  )


def _speeds(
  config: ConfigDict, measured: list[TrainedModel], works: Sequence[str]
) -> dict[str, Any]:
  """Measures predict, step and cached; returns what the JSON file holds."""
  sizes = measured[0].preprocessing
  assert sizes is not None
  batch_size, crop = config.batch_size, sizes.crop
  batch_sizes, crops = _integers(_BATCH_SIZES), _integers(_CROPS)
  grows = bool(batch_sizes or crops)
  names = [work for work in works if work in steps.WORKS]
  if steps.STEP in names and steps.CACHED not in names and not grows:
    names.insert(names.index(steps.STEP) + 1, steps.CACHED)
  others = {}
  if _VERSUS.value:
    others = versus_torch.calls(measured[0], batch_size, crop)
  speeds = speed.measure(
    config,
    measured,
    names,
    num_rounds=_ROUNDS.value,
    seconds=_SECONDS.value,
    points=growth.points(batch_sizes, crops, batch_size, crop),
    others=others,
    after=_trace if _PROFILE.value else None,
  )
  if not grows:
    print(speed_table.format_table(speeds))
  found: dict[str, Any] = {"rates": speeds.rates, "speeds": speeds.speeds}
  found["too_large"] = speeds.too_large
  if others:
    compared = versus_torch.compare(
      measured[0], batch_size, crop, speeds.others
    )
    print(versus_torch.format_comparison(compared))
    found["versus_torch"] = compared
  if grows:
    lines = growth.lines(speeds, batch_size, crop)
    print(growth.format_table(speeds, lines))
    found["growth"] = lines
  return found


def _trace(works: Sequence[steps.Work]) -> None:
  tracing.write(pathlib.Path(_PROFILE.value), works)
  print(f"The trace is in {_PROFILE.value}.")


def _pictures(
  config: ConfigDict, measured: list[TrainedModel], works: Sequence[str]
) -> dict[str, Any]:
  images = _IMAGES.value or _STREAM_IMAGES
  runs = []
  for model in measured:
    if pictures.STREAM in works:
      runs.append(pictures.stream(config, model, images))
    if pictures.TILE in works:
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
  return {"pictures": runs} if runs else {}


def _train(config: ConfigDict) -> list[epochs.TrainRun]:
  runs = epochs.measure(config, _CACHES.value or [config.cache], _EPOCHS.value)
  print(epochs.format_table(runs))
  return runs


def _data(config: ConfigDict) -> dict[str, Any]:
  images = _IMAGES.value or _DATA_IMAGES
  found = data.measure(config, _ROUNDS.value, _SECONDS.value, images)
  print(data.format_table(found))
  return found


def _metrics(config: ConfigDict) -> dict[str, Any]:
  evaluation = config.evaluation
  runs, exactness = maps.measure(
    _integers(_MAPS),
    evaluation.size,
    categories=_CATEGORIES.value,
    max_fpr=evaluation.max_fpr,
  )
  print(maps.format_table(runs, exactness))
  return {"runs": runs, "exactness": exactness}


_OTHERS = {TRAIN: _train, DATA: _data, METRICS: _metrics}


def _integers(flag: flags.FlagHolder) -> list[int]:
  """Returns the numbers of a flag that is a list."""
  texts = flag.value or []
  if not all(text.isdecimal() and int(text) for text in texts):
    raise ValueError(
      f"--{flag.name} is {','.join(texts)!r}; expected whole numbers above 0, "
      "separated by commas."
    )
  return [int(text) for text in texts]


def _numbers(flag: str, text: str, separator: str, count: int) -> list[int]:
  numbers = text.split(separator)
  if len(numbers) != count or not all(n.isdecimal() for n in numbers):
    example = {"picture": "4000x3000", "tile": "1024,1024,256"}[flag]
    raise ValueError(
      f"--{flag} is {text!r}; expected {count} whole numbers, as in {example}."
    )
  return [int(number) for number in numbers]


if __name__ == "__main__":
  flags.FLAGS.set_gnu_getopt(True)  # the works may precede the flags
  _CONFIG = command_line.define_config()
  flags.adopt_module_key_flags(command_line)
  _ENCODERS = flags.DEFINE_list(
    "encoders",
    [],
    "Names of encoders, except for train and data; by default that of the "
    "config.",
  )
  _WORKDIR = flags.DEFINE_string(
    "workdir", "", "Folder of a run whose model is measured instead."
  )
  _ROUNDS = flags.DEFINE_integer("rounds", 5, "Number of rounds to measure.", 1)
  _SECONDS = flags.DEFINE_float(
    "seconds", 3.0, "Seconds that a measurement takes at least."
  )
  _JSON = flags.DEFINE_string("json", "", "File to write the figures to.")
  _PROFILE = flags.DEFINE_string(
    "profile", "", "predict, step: folder to write a jax.profiler trace to."
  )
  _VERSUS = flags.DEFINE_enum(
    "versus", None, ["torch"], "Framework to time the encoder's blocks in."
  )
  _BATCH_SIZES = flags.DEFINE_list(
    "batch_sizes", [], "predict, step: batches to measure at, e.g. 1,2,4,8."
  )
  _CROPS = flags.DEFINE_list(
    "crops", [], "predict, step: sides of images in pixels to measure at."
  )
  _CACHES = flags.DEFINE_list(
    "caches",
    [],
    f"train: some of {','.join(training_inputs.CACHES)}; by default that of "
    "the config.",
  )
  _EPOCHS = flags.DEFINE_integer(
    "epochs", 3, "train: number of epochs with each cache.", 2
  )
  _MAPS = flags.DEFINE_list(
    "maps", ["100", "1000", "3800", "10000"], "metrics: numbers of maps."
  )
  _CATEGORIES = flags.DEFINE_integer(
    "categories", 1, "metrics: number of categories that the maps are of.", 1
  )
  _IMAGES = flags.DEFINE_integer(
    "images",
    None,
    f"Number of images; stream: {_STREAM_IMAGES:,} by default, data: "
    f"{_DATA_IMAGES} of each kind.",
    1,
  )
  _PICTURE = flags.DEFINE_string(
    "picture", "4000x3000", "tile: width and height of the picture in pixels."
  )
  _TILE = flags.DEFINE_string(
    "tile", "1024,1024,256", "tile: height, width and overlap in pixels."
  )
  command_line.run(main, example="demo")
