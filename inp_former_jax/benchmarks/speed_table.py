"""Formats the speeds as tables."""

from collections.abc import Sequence

from inp_former_jax.benchmarks.floor import Rates
from inp_former_jax.benchmarks.rounds import Spread
from inp_former_jax.benchmarks.speed import Speed, Speeds

_NOTES = """\
of floor: the shortest time that the rates allow / the time taken
compiler: XLA's own count; a loop's body counts once, and caches are unknown"""


def format_table(found: Speeds) -> str:
  """Formats speeds, memory and operations, and the rates they compare with.

  Args:
    found: What `speed.measure` returned.
  """
  return "\n".join(
    [
      format_rates(found.rates),
      _header(),
      *(_row(speed) for speed in found.speeds),
      "",
      _cost_header(),
      *(_cost_row(speed) for speed in found.speeds),
      _NOTES,
      *found.too_large,
    ]
  )


def format_rates(rates: Sequence[Rates]) -> str:
  """Formats what a device can do, in a line.

  Args:
    rates: The rates of every round.
  """
  flops = Spread.of([rate.flops / 1e9 for rate in rates])
  copied = Spread.of([rate.bytes / 1e9 for rate in rates])
  return (
    f"the floor's rates: {flops.median:,.0f} GFLOP/s by a matrix product "
    f"({flops.low:,.0f} - {flops.high:,.0f}), {copied.median:,.1f} GB/s by a "
    f"copy ({copied.low:,.1f} - {copied.high:,.1f})"
  )


def _header() -> str:
  return (
    f"{'encoder':<24}{'work':<9}{'batch':>5}{'pixels':>9}{'images/s':>10}  "
    f"{'min - max':<17}{'of floor':>8}  {'min - max':<13}{'compiled':>8}"
  )


def _row(speed: Speed) -> str:
  rates, fraction = speed.images_per_second, speed.fraction
  spread = f"{rates.low:.2f} - {rates.high:.2f}"
  fractions = f"{fraction.low:.3f} - {fraction.high:.3f}"
  return (
    f"{_name(speed)}{rates.median:>10.2f}  {spread:<17}"
    f"{fraction.median:>8.3f}  {fractions:<13}{speed.compile_seconds:>6.1f} s"
  )


def _cost_header() -> str:
  return (
    "memory in MB of 10^6 bytes; GFLOP and MB an image\n"
    f"{'encoder':<24}{'work':<9}{'batch':>5}{'pixels':>9}{'host':>7}"
    f"{'device':>8}{'temp.':>8}{'args':>7}{'out':>6}{'GFLOP':>8}"
    f"{'compiler':>9}{'MB':>8}{'compiler':>9}"
  )


def _cost_row(speed: Speed) -> str:
  batch = speed.batch_size
  return (
    f"{_name(speed)}{_number(speed.host_bytes, 1e6):>7}"
    f"{_number(speed.device_bytes, 1e6):>8}"
    f"{_number(speed.temporary_bytes, 1e6):>8}"
    f"{_number(speed.argument_bytes, 1e6):>7}"
    f"{_number(speed.output_bytes, 1e6):>6}"
    f"{_number(speed.flops, 1e9, 2):>8}"
    f"{_number(speed.compiler_flops, batch * 1e9, 2):>9}"
    f"{_number(speed.floor_bytes, batch * 1e6, 1):>8}"
    f"{_number(speed.compiler_bytes, batch * 1e6, 1):>9}"
  )


def _name(speed: Speed) -> str:
  height, width = speed.crop
  return (
    f"{speed.encoder:<24}{speed.work:<9}{speed.batch_size:>5}"
    f"{f'{width}x{height}':>9}"
  )


def _number(value: float | None, unit: float, digits: int = 0) -> str:
  return "-" if value is None else f"{value / unit:,.{digits}f}"
