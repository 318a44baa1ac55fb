"""The speed of reading images: decoding, the loader, and the image cache."""

import contextlib
import dataclasses
import functools
import itertools
import os
import pathlib
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent import futures
from typing import Any

import numpy as np
import PIL
import psutil
from ml_collections import ConfigDict
from PIL import Image

from inp_former_jax import experiment
from inp_former_jax.data import loader, transforms, worker_processes
from inp_former_jax.data.demo import drawing
from inp_former_jax.data.image_cache import cached_images
from inp_former_jax.data.image_files import StoredFile
from inp_former_jax.data.records import NORMAL, Record

SIDE = 1024  # pixels, of the images that are made on the spot
FORMATS = {"PNG": {}, "JPEG": {"quality": 95}}
DECODE, LOAD, LOADER, CACHE = "decode", "load", "loader", "image cache"
_EPOCH = 2048  # images


@dataclasses.dataclass
class _Work:
  """A kind of work with some images, and how fast it was in each round."""

  source: str
  work: str
  megabytes: float
  do: Callable[[], int]  # returns the number of images that it has read
  images_per_second: list[float] = dataclasses.field(default_factory=list)
  images_per_cpu_second: list[float] = dataclasses.field(default_factory=list)

  def row(self) -> dict[str, Any]:
    """Returns what was measured, fit for JSON."""
    values = dataclasses.asdict(self)
    del values["do"]
    return values


def measure(
  config: ConfigDict, rounds: int, seconds: float, images: int
) -> dict[str, Any]:
  """Times how fast images are read, without a model.

  There are four kinds of work: DECODE, one file after another; LOAD, which also
  resizes and crops; LOADER, the batches of training in threads or processes, as
  `config.data` says; and CACHE, the same from decoded images on the disk
  (`config.cache=images`). Every round takes all of them in turn, so that a slow
  minute of the machine slows all of them. The files are in the operating
  system's cache of the disk.

  Args:
    config: The config of a run; `batch_size`, `data` and `evaluation` are read.
      If it names a data set, its images are measured as well.
    rounds: Number of times that everything is measured.
    seconds: Shortest duration of a measurement in seconds.
    images: Number of images of each kind, at least 1.

  Returns:
    A JSON-able dict with `cores`, `pillow`, `resize`, `crop`, `batch_size`,
    `num_workers`, `num_threads`, `images` and `rows`. A row has `source`,
    `work`, `megabytes` (the mean of a file), and two lists with a value for
    each round: `images_per_second`, and `images_per_cpu_second`, which counts
    the time of all threads and processes and so is the speed of one core.

  Raises:
    DataError: If the data set cannot be read.
    ValueError: If a number is out of range.
  """
  for name, number in (("rounds", rounds), ("images", images)):
    if number < 1:
      raise ValueError(f"`{name}` is {number}; expected 1 or more.")
  with (
    tempfile.TemporaryDirectory() as folder,
    contextlib.ExitStack() as opened,
  ):
    root = pathlib.Path(folder)
    works = [
      work
      for source, records in _sources(config, root, images)
      for work in _works(config, source, records, root, opened)
    ]
    for work in works:
      work.do()  # starts the threads or processes
    for _, work in itertools.product(range(rounds), works):
      _time(work, seconds)
  return {
    "cores": worker_processes.usable_cores(),
    "pillow": PIL.__version__,
    "resize": config.data.resize,
    "crop": config.data.crop,
    "batch_size": config.batch_size,
    "num_workers": config.data.num_workers,
    "num_threads": config.data.num_threads,
    "images": images,
    "rows": [work.row() for work in works],
  }


def format_table(measurement: Mapping[str, Any]) -> str:
  """Formats the results.

  Args:
    measurement: What `measure` returned.
  """
  found = measurement
  lines = [
    f"{found['cores']} cores, Pillow {found['pillow']}, resized to "
    f"{found['resize']} and cropped to {found['crop']} pixels, "
    f"{found['num_workers']} workers, {found['num_threads']} threads",
    f"{'images':<18}{'MB':>6}  {'work':<12}{'images/s':>9}  {'min - max':<18}"
    f"{'per core':>9}",
  ]
  for row in found["rows"]:
    rates = row["images_per_second"]
    spread = f"{min(rates):.1f} - {max(rates):.1f}"
    lines.append(
      f"{row['source'][:17]:<18}{row['megabytes']:>6.2f}  {row['work']:<12}"
      f"{np.median(rates):>9.1f}  {spread:<18}"
      f"{np.median(row['images_per_cpu_second']):>9.1f}"
    )
  return "\n".join(lines)


def _sources(
  config: ConfigDict, root: pathlib.Path, images: int
) -> Iterator[tuple[str, Sequence[Record]]]:
  """Yields images that are made here, then those of the config, if any."""
  with futures.ThreadPoolExecutor(worker_processes.usable_cores()) as pool:
    make = functools.partial(_write_pictures, root)
    paths = list(pool.map(make, range(images)))
  for number, name in enumerate(FORMATS):
    files = [Record(path[number], "made", NORMAL, "good") for path in paths]
    yield f"{name} {SIDE}x{SIDE}", files
  data = config.data
  if data.root or data.tfds or data.sources:
    dataset = experiment.read_dataset(config, root)
    found = [*dataset.train, *dataset.test]
    yield dataset.name, found[:: max(1, len(found) // images)][:images]


def _write_pictures(root: pathlib.Path, number: int) -> list[pathlib.Path]:
  """Writes an image in all formats: smooth shapes with a camera's noise."""
  rng = np.random.default_rng(number)
  shapes = [drawing.smooth_noise(rng, SIDE, 24) for _ in range(3)]
  pixels = 128 + 35 * np.stack(shapes, axis=-1)
  pixels += 4 * rng.standard_normal(pixels.shape, dtype=np.float32)
  image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
  paths = []
  for name, options in FORMATS.items():
    paths.append(root / f"{number:05d}.{name.lower()}")
    image.save(paths[-1], name, **options)
  return paths


def _works(
  config: ConfigDict,
  source: str,
  records: Sequence[Record],
  root: pathlib.Path,
  opened: contextlib.ExitStack,
) -> Iterator[_Work]:
  """Yields all kinds of work with some images."""
  sizes = experiment.preprocessing(config)
  load = functools.partial(transforms.load_image, preprocessing=sizes)
  decode = functools.partial(transforms.decode, mode="RGB")
  cached = cached_images(records, sizes, root, source)
  for record in records:
    cached(record.image)
  megabytes = float(np.mean([_bytes(record) for record in records])) / 1e6
  work = functools.partial(_Work, source, megabytes=megabytes)
  yield work(DECODE, do=_one_by_one(records, decode))
  yield work(LOAD, do=_one_by_one(records, load))
  yield work(LOADER, do=_batches(config, records, load, opened))
  yield work(CACHE, do=_batches(config, records, cached, opened))


def _bytes(record: Record) -> int:
  if isinstance(record.image, StoredFile):
    return len(record.image.open().read())
  return os.path.getsize(record.image)


def _one_by_one(
  records: Sequence[Record], read: Callable[[Any], object]
) -> Callable[[], int]:
  """Returns a function that reads the next image, again and again."""
  endless = itertools.cycle(records)

  def do() -> int:
    read(next(endless).image)
    return 1

  return do


def _batches(
  config: ConfigDict,
  records: Sequence[Record],
  load: Callable[[Any], np.ndarray],
  opened: contextlib.ExitStack,
) -> Callable[[], int]:
  """Returns a function that takes the next batch of training."""
  # Of an epoch's usual length: grain takes 1.4 ms to draw one of 16 images, and
  # less the more there are.
  repeated = list(records) * -(-_EPOCH // len(records))
  batches = loader.training_batches(
    repeated,
    experiment.preprocessing(config),
    batch_size=config.batch_size,
    seed=config.seed,
    num_workers=config.data.num_workers,
    num_threads=config.data.num_threads,
    load=load,
  )
  opened.callback(batches.close)
  return lambda: len(next(batches)["image"])


def _time(work: _Work, seconds: float) -> None:
  count, cpu, start = 0, _cpu_seconds(), time.perf_counter()
  while (elapsed := time.perf_counter() - start) < seconds or count == 0:
    count += work.do()
  cpu = max(_cpu_seconds() - cpu, 1e-9)
  work.images_per_second.append(count / elapsed)
  work.images_per_cpu_second.append(count / cpu)


def _cpu_seconds() -> float:
  """Returns the time that cores have spent on this process and its workers."""
  seconds = 0.0
  process = psutil.Process()
  for each in (process, *process.children(recursive=True)):
    with contextlib.suppress(psutil.NoSuchProcess):
      times = each.cpu_times()
      seconds += times.user + times.system
  return seconds
