"""The allowed values of every field of a config, checked before a job starts.

A value out of range would fail late, far from its cause, or be accepted
silently: a checkpoint that is never kept, a learning rate that trains nothing.
What depends on more than one value is checked where it is used: whether the
patches divide the crop, the devices a batch; encoders and layouts are looked up
by name there too, because their errors name the nearest ones.
"""

import dataclasses
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from inp_former_jax import config_files
from inp_former_jax.data.sampling import SAMPLINGS
from inp_former_jax.models.attention import IMPLEMENTATIONS
from inp_former_jax.training.checkpoints.saved_runs import USES
from inp_former_jax.training.model_state import DTYPES
from inp_former_jax.training_inputs import CACHES

MULTI_CLASS, SINGLE_CLASS, ZERO_SHOT = (
  "multi_class",
  "single_class",
  "zero_shot",
)
PROTOCOLS = (MULTI_CLASS, SINGLE_CLASS, ZERO_SHOT)

_STEPS = 2**31 - 1  # the optimizer counts its steps in 32 bits
_MANY = 1_000_000
_SIDE = 8192  # pixels
_LONGEST = 60  # characters of a value that are shown


@dataclasses.dataclass(frozen=True)
class Range:
  """The allowed values of a field.

  Attributes:
    holds: Function that tells whether a value is allowed; it takes any type.
    expected: Description of the allowed values, for errors.
  """

  holds: Callable[[Any], bool]
  expected: str


def _whole(low: int, high: int, *, also: int | None = None) -> Range:
  def holds(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
      return False
    return bool(low <= value <= high or value == also)

  first = "" if also is None else f"{also}, or "
  return Range(holds, f"{first}a whole number from {low} to {high}")


def _number(sound: Callable[[float], bool], expected: str) -> Range:
  def holds(value: Any) -> bool:
    kinds = int | float | np.integer | np.floating
    if isinstance(value, bool) or not isinstance(value, kinds):
      return False
    try:
      return math.isfinite(value) and sound(float(value))
    except OverflowError:  # a whole number beyond all floats
      return False

  return Range(holds, expected)


def _one_of(*names: str) -> Range:
  return Range(
    lambda value: isinstance(value, str) and value in names,
    f"one of {', '.join(names)}",
  )


def _is_text(value: Any) -> bool:
  return isinstance(value, str | os.PathLike) and "\0" not in os.fspath(value)


def _is_place(value: Any) -> bool:
  return isinstance(value, str) and bool(
    re.fullmatch(r"(gs://[^/\s]+/.*[^/\s])?", value) and "//" not in value[5:]
  )


def _is_sequence(value: Any) -> bool:
  return isinstance(value, Sequence) and not isinstance(value, str | bytes)


def _are_texts(value: Any) -> bool:
  return _is_sequence(value) and all(map(_is_text, value))


def _are_sources(value: Any) -> bool:
  return _is_sequence(value) and all(
    _is_sequence(source)
    and len(source) in (2, 3)
    and _are_texts(source[:2])
    and all(map(_are_texts, source[2:]))
    for source in value
  )


def _are_shares(value: Any) -> bool:
  return (
    _is_sequence(value)
    and len(value) == 3
    and all(map(_NOT_NEGATIVE.holds, value))
    and sum(value) > 0
  )


_BOOLEAN = Range(lambda value: isinstance(value, bool), "True or False")
_TEXT = Range(_is_text, "a text")
_PATH = Range(_is_text, "a path")
_TEXTS = Range(_are_texts, "a tuple of texts, such as ('bolt', 'nut')")
_SOURCES = Range(
  _are_sources,
  "a tuple of (layout, root) or (layout, root, categories), such as "
  "(('mvtec', '/data/mvtec'), ('visa', '/data/visa', ('candle',)))",
)
_SHARES = Range(_are_shares, "three numbers from 0 on that are not all 0")
_NOT_NEGATIVE = _number(lambda x: x >= 0, "a finite number, 0 or more")
_POSITIVE = _number(lambda x: x > 0, "a finite number above 0")
_DECAY = _number(lambda x: 0 <= x < 1, "a number within [0, 1)")
_SHARE = _number(lambda x: 0 < x <= 1, "a number within (0, 1]")
_RATE = _number(lambda x: 0 < x < 1, "a number within (0, 1)")
_COUNT = _whole(0, _STEPS)

# Fields of all configs.
_COMMON = {
  "seed": _whole(0, 2**32 - 1),
  "batch_size": _whole(1, _MANY),
  "epochs": _whole(0, _MANY),
  "steps": _COUNT,
  "optimizer.peak_learning_rate": _NOT_NEGATIVE,
  "optimizer.final_learning_rate": _NOT_NEGATIVE,
  "optimizer.warmup_steps": _COUNT,
  "optimizer.weight_decay": _NOT_NEGATIVE,
  "optimizer.b1": _DECAY,
  "optimizer.b2": _DECAY,
  "optimizer.eps": _POSITIVE,
  "optimizer.max_norm": _POSITIVE,
  "data.num_workers": _whole(-1, 1024),
  "data.num_threads": _whole(0, 1024),
  "evaluation.every_steps": _COUNT,
  "checkpoint.every_steps": _whole(0, _STEPS, also=-1),
  "checkpoint.every_minutes": _NOT_NEGATIVE,
  "checkpoint.folder": Range(_is_place, "empty, or gs://BUCKET/FOLDER"),
  "checkpoint.keep": _whole(1, _MANY),
  "log.every_steps": _COUNT,
  "log.tensorboard": _BOOLEAN,
  "mesh.data": _whole(1, _MANY, also=-1),
  "mesh.fsdp": _whole(1, _MANY),
}
# Fields of configs/common.py.
TRAINING = _COMMON | {
  "protocol": _one_of(*PROTOCOLS),
  "zero_shot_checkpoint": _PATH,
  "init_from": _PATH,
  "cache": _one_of(*CACHES),
  "cache_dir": _PATH,
  "model.encoder": _TEXT,
  "model.encoder_weights": _PATH,
  "model.num_prototypes": _whole(1, 4096),
  "model.use_inps": _BOOLEAN,
  "model.dtype": _one_of(*DTYPES),
  "model.attention": _one_of(*IMPLEMENTATIONS),
  "model.remat": _BOOLEAN,
  "loss.coherence_weight": _NOT_NEGATIVE,
  "loss.gamma": _NOT_NEGATIVE,
  "data.layout": _TEXT,
  "data.root": _PATH,
  "data.categories": _TEXTS,
  "data.sources": _SOURCES,
  "data.tfds": _TEXT,
  "data.tfds_dir": _PATH,
  "data.realiad_images": _PATH,
  "data.realiad_jsons": _PATH,
  "data.sampling": _one_of(*SAMPLINGS),
  "data.skip_unreadable": _BOOLEAN,
  "data.shots": _whole(0, _MANY),
  "data.resize": _whole(1, _SIDE),
  "data.crop": _whole(1, _SIDE),
  "data.resize_width": _whole(0, _SIDE),
  "data.crop_width": _whole(0, _SIDE),
  "evaluation.batch_size": _whole(1, _MANY),
  "evaluation.size": _whole(1, 4096),
  "evaluation.top_fraction": _SHARE,
  "evaluation.max_fpr": _SHARE,
  "evaluation.exact": _BOOLEAN,
  "evaluation.grid_images": _whole(0, 1000),
  "checkpoint.best": _TEXT,
  "checkpoint.use": _one_of(*USES),
  "calibration.holdout": _DECAY,
  "calibration.image_rate": _RATE,
  "calibration.pixel_rate": _RATE,
}
# Fields of configs/distill.py.
DISTILLATION = _COMMON | {
  "teacher.encoder": _TEXT,
  "teacher.weights": _PATH,
  "student.encoder": _TEXT,
  "student.initial": _PATH,
  "student.dtype": _one_of(*DTYPES),
  "views.folders": _TEXTS,
  "views.shares": _SHARES,
  "views.size": _whole(1, _SIDE),
  "views.min_area": _SHARE,
  "views.train": _whole(1, _STEPS),
  "views.held_out": _whole(1, _STEPS),
  "views.calibration": _whole(1, _STEPS),
}


def check_fields(
  config: ConfigDict, ranges: Mapping[str, Range] = TRAINING
) -> None:
  """Checks every field of a config.

  Args:
    config: The config of a job. Fields that are not in `ranges` are ignored.
    ranges: The allowed values of each field, by dotted name.

  Raises:
    ValueError: If the config is one for another kind of job, lacks a field, or
      has a value that is not allowed. The message has a line for each field.
  """
  _require_kind(config, ranges)
  found = dict(_leaves(config))
  wrong = []
  for name, allowed in ranges.items():
    if name not in found:
      wrong.append(f"config.{name} is missing; expected {allowed.expected}.")
    elif not allowed.holds(found[name]):
      value = _shown(found[name])
      wrong.append(f"config.{name} is {value}; expected {allowed.expected}.")
  if wrong:
    raise ValueError("\n".join(wrong))


def _require_kind(config: ConfigDict, ranges: Mapping[str, Range]) -> None:
  """Spares whoever names the wrong config a line for every field."""
  expected = config_files.kind_of({name.split(".")[0] for name in ranges})
  found = config_files.kind_of(config)
  if found not in (None, expected):
    example = "folder or mvtec"
    if expected == config_files.DISTILLATION:
      example = "distill"
    raise ValueError(
      f"The config is that of a {found}; expected that of a {expected}, such "
      f"as {example}."
    )


def _leaves(config: ConfigDict, prefix: str = "") -> Iterator[tuple[str, Any]]:
  for name, value in config.items():
    if isinstance(value, ConfigDict):
      yield from _leaves(value, f"{prefix}{name}.")
    else:
      yield prefix + name, value


def _shown(value: Any) -> str:
  if isinstance(value, int) and value.bit_length() > 64:
    return f"a whole number of {value.bit_length()} bits"  # Python refuses most
  text = repr(value)
  return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
