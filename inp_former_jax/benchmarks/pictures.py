"""Speed and memory of a predictor over files: many small ones, a large one."""

import dataclasses
import itertools
import pathlib
import statistics
import tempfile
import time
from collections.abc import Sequence

import numpy as np
from ml_collections import ConfigDict
from PIL import Image

from inp_former_jax.benchmarks import memory
from inp_former_jax.field_names import naming_fields
from inp_former_jax.inference.predictor import Predictor
from inp_former_jax.inference.trained import TrainedModel

STREAM, TILE = "stream", "tile"
WORKS = (STREAM, TILE)
PARTS = 10
_FILES = 300  # distinct small images
_SMALL = (256, 256)


@dataclasses.dataclass(frozen=True)
class PictureRun:
  """What it took to answer for image files.

  Attributes:
    encoder: Name of the encoder.
    work: Kind of work: STREAM (small images one after another) or TILE (a large
      image in tiles).
    images: Number of images.
    size: Height and width of the images in pixels.
    seconds: Seconds from the first file's name to the last answer.
    before: Resident size of the process in bytes, with the model loaded and
      compiled.
    highest: The highest resident size meanwhile.
    process: The highest resident size since the process began, which includes
      loading and compiling, and the work that was measured earlier.
    parts: The highest resident size in each of equal parts of a stream.
  """

  encoder: str
  work: str
  images: int
  size: tuple[int, int]
  seconds: float
  before: int
  highest: int
  process: int
  parts: tuple[int, ...] = ()


@naming_fields()
def stream(config: ConfigDict, model: TrainedModel, images: int) -> PictureRun:
  """Answers for small PNG files, which are decoded again every time.

  Args:
    config: The config of a run; `batch_size` and `data.num_threads` are read.
    model: The model.
    images: Number of images, at least PARTS.

  Returns:
    Speed and memory.

  Raises:
    ValueError: If there are fewer images than PARTS.
  """
  if images < PARTS:
    raise ValueError(
      f"`images` is {images}; expected {PARTS} or more, one for each part of "
      "the run."
    )
  predictor = _predictor(config, model)
  with tempfile.TemporaryDirectory() as folder:
    files = _write_small(pathlib.Path(folder), min(images, _FILES))
    warm_up = itertools.islice(itertools.cycle(files), 4 * config.batch_size)
    for _ in predictor.stream(warm_up):
      pass
    parts = []
    with memory.Watch() as watch:
      start = time.perf_counter()
      names = itertools.islice(itertools.cycle(files), images)
      for count, _ in enumerate(predictor.stream(names), 1):
        if count * PARTS // images > len(parts):
          parts.append(watch.highest_of_part())
      seconds = time.perf_counter() - start
  return _run(model, STREAM, images, _SMALL, seconds, watch, tuple(parts))


@naming_fields()
def tile(
  config: ConfigDict,
  model: TrainedModel,
  size: tuple[int, int],
  tile: tuple[int, int, int],
  *,
  rounds: int,
) -> PictureRun:
  """Answers for a large PNG file in tiles.

  Args:
    config: The config of a run; `batch_size` and `data.num_threads` are read.
    model: The model.
    size: Height and width of the picture in pixels.
    tile: Height, width and overlap of the tiles in pixels.
    rounds: Number of times that it is measured, after once to compile.

  Returns:
    Memory, and the median of the seconds.

  Raises:
    ValueError: If the tiles or the picture are impossible.
  """
  if min(size) < 1:
    raise ValueError(
      f"`picture` is {size[1]}x{size[0]}; expected sides above 0."
    )
  predictor = _predictor(config, model, tile)
  with tempfile.TemporaryDirectory() as folder:
    file = _write(pathlib.Path(folder) / "large.png", size, seed=0)
    predictor(file)
    seconds = []
    with memory.Watch() as watch:
      for _ in range(rounds):
        start = time.perf_counter()
        predictor(file)
        seconds.append(time.perf_counter() - start)
  return _run(model, TILE, 1, size, statistics.median(seconds), watch)


def _predictor(
  config: ConfigDict,
  model: TrainedModel,
  tile: tuple[int, int, int] | None = None,
) -> Predictor:
  return Predictor(
    model,
    batch_size=config.batch_size,
    tile=tile,
    num_threads=config.data.num_threads,
  )


def _run(
  model: TrainedModel,
  work: str,
  images: int,
  size: tuple[int, int],
  seconds: float,
  watch: memory.Watch,
  parts: tuple[int, ...] = (),
) -> PictureRun:
  return PictureRun(
    encoder=model.settings.encoder,
    work=work,
    images=images,
    size=size,
    seconds=seconds,
    before=watch.before,
    highest=watch.highest,
    # The kernel's own highest lags behind by some pages.
    process=max(memory.highest_resident(), watch.highest),
    parts=parts,
  )


def _write_small(folder: pathlib.Path, count: int) -> list[pathlib.Path]:
  return [_write(folder / f"{i}.png", _SMALL, seed=i) for i in range(count)]


def _write(
  path: pathlib.Path, size: tuple[int, int], seed: int
) -> pathlib.Path:
  """Writes ramps under noise, which PNG cannot shorten to nothing."""
  rows, columns = (np.arange(side, dtype=np.uint8) for side in size)
  noise = np.random.default_rng(seed).integers(0, 32, (*size, 3), np.uint8)
  noise += rows[:, None, None]
  noise += columns[:, None]
  Image.fromarray(noise).save(path, compress_level=1)
  return path


def format_table(runs: Sequence[PictureRun]) -> str:
  """Formats the results; memory is in megabytes (MB) of 10^6 bytes.

  Args:
    runs: What `stream` and `tile` returned.
  """
  lines = [
    "resident memory in MB: with the model compiled, the highest at work, and "
    "the process's highest",
    f"{'encoder':<24}{'work':<9}{'images/s':>9}{'images':>8}"
    f"{'pixels':>11}{'seconds':>9}{'compiled':>10}{'at work':>9}{'process':>9}",
  ]
  for run in runs:
    height, width = run.size
    lines.append(
      f"{run.encoder:<24}{run.work:<9}{run.images / run.seconds:>9.2f}"
      f"{run.images:>8}{f'{width}x{height}':>11}{run.seconds:>9.2f}"
      f"{_mb(run.before):>10}{_mb(run.highest):>9}{_mb(run.process):>9}"
    )
    if run.parts:
      parts = " ".join(_mb(part) for part in run.parts)
      lines.append(f"  highest in each {len(run.parts)}th: {parts}")
  return "\n".join(lines)


def _mb(size: int) -> str:
  return f"{size / 1e6:.0f}"
