"""Speed, memory and fraction of the floor of prediction and training step."""

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import jax
from ml_collections import ConfigDict

from inp_former_jax.benchmarks import floor, memory, rounds, steps
from inp_former_jax.benchmarks.rounds import Spread
from inp_former_jax.field_names import naming_fields
from inp_former_jax.inference.trained import TrainedModel
from inp_former_jax.training.model_state import DTYPES

_NO_MEMORY = "RESOURCE_EXHAUSTED"


@dataclasses.dataclass(frozen=True)
class Point:
  """A size at which works are measured.

  Attributes:
    batch_size: Number of images in the global batch.
    crop: Height and width of the images in pixels.
  """

  batch_size: int
  crop: tuple[int, int]


@dataclasses.dataclass(frozen=True)
class Speed:
  """What one kind of work takes with one encoder at one size.

  Attributes:
    encoder: Name of the encoder.
    work: Kind of work, one of `steps.WORKS`.
    batch_size: Number of images in the global batch.
    crop: Height and width of the images in pixels.
    seconds: Seconds of a batch, one value for each round.
    fractions: Fraction of the floor in each round: the shortest time that the
      rates of this round allow, divided by the time that the batch took.
    compile_seconds: Seconds to trace, lower and compile, without a cache.
    flops: Floating-point operations of an image by count of shapes.
    floor_bytes: Bytes of a batch that a device must read and write.
    compiler_flops: Operations of a batch on a device by the compiler's count,
      see `compiling.Program`; None where it does not tell.
    compiler_bytes: Bytes that its operations read and write, likewise.
    temporary_bytes: Memory besides arguments and outputs on a device, likewise.
    argument_bytes: Memory of the arguments on a device, likewise.
    output_bytes: Memory of the outputs on a device, likewise.
    host_bytes: The highest resident size of the process during the first
      batches, everything that is loaded included.
    device_bytes: The highest memory in use on a device until then, since the
      process began; None where the backend does not tell, as on a CPU.
  """

  encoder: str
  work: str
  batch_size: int
  crop: tuple[int, int]
  seconds: tuple[float, ...]
  fractions: tuple[float, ...]
  compile_seconds: float
  flops: int
  floor_bytes: int
  compiler_flops: float | None
  compiler_bytes: float | None
  temporary_bytes: int | None
  argument_bytes: int | None
  output_bytes: int | None
  host_bytes: int
  device_bytes: int | None

  @property
  def images_per_second(self) -> Spread:
    """Images per second over the rounds."""
    return Spread.of([self.batch_size / seconds for seconds in self.seconds])

  @property
  def fraction(self) -> Spread:
    """Fraction of the floor over the rounds."""
    return Spread.of(self.fractions)


@dataclasses.dataclass(frozen=True)
class Speeds:
  """What `measure` found.

  Attributes:
    speeds: The speed of every kind of work with every encoder at every size.
    rates: What a device can do, one value for each round.
    others: Seconds of a call of the other functions, one for each round.
    too_large: The works whose memory was not there, each in a line.
  """

  speeds: tuple[Speed, ...]
  rates: tuple[floor.Rates, ...]
  others: dict[str, tuple[float, ...]]
  too_large: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class _Prepared:
  work: steps.Work
  host_bytes: int
  device_bytes: int | None


@naming_fields()
def measure(
  config: ConfigDict,
  models: Sequence[TrainedModel],
  works: Collection[str],
  *,
  num_rounds: int,
  seconds: float,
  points: Sequence[Point] = (),
  others: Mapping[str, Callable[[], object]] | None = None,
  side: int | None = None,
  after: Callable[[Sequence[steps.Work]], None] | None = None,
) -> Speeds:
  """Times every kind of work with every model, and what the device can do.

  Args:
    config: The config of a run; batch size, loss and optimizer are read.
    models: The models, which share sizes, dtype and mesh.
    works: Kinds of work, of `steps.WORKS`.
    num_rounds: Number of times that everything is measured, in turn.
    seconds: Shortest duration of a measurement in seconds.
    points: The sizes to measure at; by default that of config and models.
    others: Further functions that are timed in the same rounds, by name.
    side: Side of the matrices whose product is the floor; by default large
      enough for the device.
    after: Function that is called with all works when they have been timed.

  Returns:
    The speeds, and the rates that they are compared with.

  Raises:
    ValueError: If the number of devices does not divide a batch, or a crop
      cannot be cut into patches.
  """
  sizes = models[0].preprocessing
  assert sizes is not None
  points = points or [Point(config.batch_size, sizes.crop)]
  prepared, too_large = _prepare_all(config, models, works, points)
  mesh, dtype = models[0].mesh, DTYPES[models[0].settings.dtype]
  meter = floor.Meter(mesh.local_devices[0], dtype, side=side)
  calls: dict[Any, Callable[[], object]] = dict(meter.calls)
  calls |= {i: one.work.call for i, one in enumerate(prepared)}
  calls |= others or {}
  found = rounds.interleave(calls, rounds=num_rounds, seconds=seconds)
  if after:
    after([one.work for one in prepared])
  rates = meter.rates(found)
  return Speeds(
    speeds=tuple(
      _speed(one, found[i], rates) for i, one in enumerate(prepared)
    ),
    rates=rates,
    others={name: found[name] for name in others or ()},
    too_large=tuple(too_large),
  )


def _prepare_all(
  config: ConfigDict,
  models: Sequence[TrainedModel],
  works: Collection[str],
  points: Sequence[Point],
) -> tuple[list[_Prepared], list[str]]:
  prepared, too_large = [], []
  for model in models:
    trainer = steps.Trainer(config, model)
    for name in works:
      for point in points:
        try:
          prepared.append(_prepare(config, name, model, trainer, point))
        except jax.errors.JaxRuntimeError as error:
          if _NO_MEMORY not in str(error):
            raise
          height, width = point.crop
          too_large.append(
            f"{model.settings.encoder} {name}: out of memory at batch "
            f"{point.batch_size} and {width}x{height} pixels."
          )
  return prepared, too_large


def _prepare(
  config: ConfigDict,
  name: str,
  model: TrainedModel,
  trainer: steps.Trainer,
  point: Point,
) -> _Prepared:
  """Compiles a kind of work and does it twice, watching the memory."""
  work = steps.build(config, name, model, trainer, point.batch_size, point.crop)
  with memory.Watch() as watch:
    work.call()
    work.call()
  return _Prepared(work, watch.highest, _device_peak(model.mesh))


def _device_peak(mesh: jax.sharding.Mesh) -> int | None:
  stats = [device.memory_stats() or {} for device in mesh.local_devices]
  peaks = [found.get("peak_bytes_in_use") for found in stats]
  known = [peak for peak in peaks if peak is not None]
  return max(known, default=None)


def _speed(
  prepared: _Prepared,
  seconds: tuple[float, ...],
  rates: Sequence[floor.Rates],
) -> Speed:
  work = prepared.work
  flops = work.flops * work.batch_size / work.model.mesh.size
  return Speed(
    encoder=work.model.settings.encoder,
    work=work.name,
    batch_size=work.batch_size,
    crop=work.crop,
    seconds=seconds,
    fractions=tuple(
      rate.floor(flops, work.floor_bytes) / taken
      for rate, taken in zip(rates, seconds, strict=True)
    ),
    compile_seconds=work.program.compile_seconds,
    flops=work.flops,
    floor_bytes=work.floor_bytes,
    compiler_flops=work.program.flops,
    compiler_bytes=work.program.bytes_accessed,
    temporary_bytes=work.program.temporary_bytes,
    argument_bytes=work.program.argument_bytes,
    output_bytes=work.program.output_bytes,
    host_bytes=prepared.host_bytes,
    device_bytes=prepared.device_bytes,
  )
