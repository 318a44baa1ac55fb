"""Reads off a compiled program what its devices send to each other."""

import collections
import dataclasses
import math
import re
from collections.abc import Iterator, Sequence

KINDS = (
  *("all-reduce", "all-gather", "reduce-scatter", "all-to-all"),
  *("collective-permute", "ragged-all-to-all", "collective-broadcast"),
)

_COMPUTATION = re.compile(r"(ENTRY )?%?([\w.\-]+) .*\{$")
_INSTRUCTION = re.compile(r" +(?:ROOT )?%?[\w.\-]+ = (.*?) ([a-z][a-z\d\-]*)\(")
_CALLED = re.compile(
  r"\b(?:calls|body|condition|to_apply|true_computation|false_computation"
  r"|branch_computations|called_computations)=(\{[^}]*\}|%?[\w.\-]+)"
)
_SHAPE = re.compile(r"\b(pred|[a-z]+\d+\w*)\[([\d,]*)\]")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
_GROUPS = re.compile(r"replica_groups=(?:\[\d+,(\d+)\]|\{\{([\d,]+)\})")
# Axes of a mesh with their sizes, and those of them along which it goes.
_MESH = re.compile(r"replica_groups=mesh\[([^\]]*)\][^{]*\{([^}]*)\}")
_PARTITIONS = re.compile(r"\bnum_partitions=(\d+)")
_CHANNEL = re.compile(r"channel_id=(\d+)")
_SCOPE = re.compile(r'op_name="([^"]*)"')


@dataclasses.dataclass(frozen=True)
class Collective:
  """An operation in which devices exchange arrays.

  Attributes:
    kind: One of KINDS.
    bytes: Bytes of the whole array on each device: what is reduced, or what is
      gathered or sent.
    group: Number of devices that exchange it.
    count: How often it runs. A loop whose number of rounds the compiler does
      not know counts once.
    scope: Where the program says that it comes from.
  """

  kind: str
  bytes: int
  group: int
  count: int
  scope: str

  @property
  def sent_bytes(self) -> float:
    """Bytes that each device must send at least, over all rounds.

    A reduction passes everything but a device's own part twice, once to be
    summed and once as the sum; all others pass it once.
    """
    share = (self.group - 1) / self.group
    if self.kind == "all-reduce":
      share *= 2
    elif self.kind in ("collective-permute", "collective-broadcast"):
      share = 1
    return share * self.bytes * self.count


@dataclasses.dataclass
class _Computation:
  """The part of a program that is between two braces."""

  lines: list[tuple[str, str, str]] = dataclasses.field(default_factory=list)
  calls: list[tuple[str, int]] = dataclasses.field(default_factory=list)


def read(text: str) -> list[Collective]:
  """Finds the collectives of a program, also in its loops and fusions.

  Of an asynchronous pair the start counts and the end does not. A TPU's program
  repeats an exchange in every fusion during which it goes on; they have the
  same channel, and count once.

  Args:
    text: The compiled program, `compiled.as_text()`.

  Returns:
    The collectives in which more than one device takes part.
  """
  entry, computations = _computations(text)
  partitions = _PARTITIONS.search(text)
  devices = int(partitions[1]) if partitions else 1
  found, channels = [], set()
  for name, count in _counts(entry, computations).items():
    for kind, result, line in computations[name].lines:
      channel = _CHANNEL.search(line)
      if channel and channel[1] in channels:
        continue
      channels |= {channel[1]} if channel else set()
      group = _group_size(line, devices)
      size = _array_bytes(kind, result) * (
        group if kind == "reduce-scatter" else 1
      )
      scope = _SCOPE.search(line)
      kind = kind.removesuffix("-start")
      if group > 1:
        found.append(
          Collective(kind, size, group, count, scope[1] if scope else "")
        )
  return found


def by_kind(found: Sequence[Collective]) -> dict[str, tuple[int, int]]:
  """Sums collectives of the same kind.

  Args:
    found: The collectives of a program.

  Returns:
    How many run, and the bytes of their arrays on each device, by kind.
  """
  return {
    kind: (
      sum(c.count for c in found if c.kind == kind),
      sum(c.count * c.bytes for c in found if c.kind == kind),
    )
    for kind in KINDS
    if any(c.kind == kind for c in found)
  }


def _computations(text: str) -> tuple[str, dict[str, _Computation]]:
  """Parses a program into its computations, and names the first to run."""
  entry, computations = "", {}
  current = _Computation()
  for line in text.splitlines():
    if line and not line.startswith((" ", "}")):
      header = _COMPUTATION.match(line)
      if header:
        current = computations[header[2]] = _Computation()
        entry = header[2] if header[1] else entry
      continue
    instruction = _INSTRUCTION.match(line)
    if not instruction:
      continue
    result, operation = instruction.groups()
    if operation.endswith(("-done", "-update")):
      continue
    if operation.removesuffix("-start") in KINDS:
      current.lines.append((operation, result, line))
    current.calls += _called(line)
  return entry, computations


def _called(line: str) -> Iterator[tuple[str, int]]:
  """Yields the computations that an instruction runs, and how often."""
  trips = _TRIPS.search(line)
  for names in _CALLED.findall(line):
    for name in re.findall(r"[\w.\-]+", names):
      yield name, int(trips[1]) if trips else 1


def _counts(
  entry: str, computations: dict[str, _Computation]
) -> dict[str, int]:
  """Counts how often each computation runs."""
  counts: collections.Counter[str] = collections.Counter()

  def run(name: str, times: int) -> None:
    counts[name] += times
    for called, trips in computations[name].calls:
      if called in computations:
        run(called, times * trips)

  run(entry, 1)
  return counts


def _group_size(line: str, devices: int) -> int:
  if "source_target_pairs=" in line:
    return 2
  mesh = _MESH.search(line)
  if mesh:
    sizes = dict(re.findall(r"'(\w+)'=(\d+)", mesh[1]))
    # A part of an axis is written 'axis':(OFFSET)SIZE.
    axes = re.findall(r"'(\w+)'(?::\(\d+\)(\d+))?", mesh[2])
    return math.prod(int(part or sizes[name]) for name, part in axes)
  found = _GROUPS.search(line)
  if not found:
    return devices  # no groups are one of all
  return int(found[1]) if found[1] else found[2].count(",") + 1


def _array_bytes(kind: str, result: str) -> int:
  """Returns the bytes of what an operation exchanges, by its result's type."""
  if kind in ("all-gather-start", "collective-permute-start"):
    result = _elements(result)[1]  # (inputs, outputs, ...)
  return (
    sum(
      math.prod(int(n) for n in sides.split(",") if n) * _bits(dtype)
      for dtype, sides in _SHAPE.findall(result)
    )
    // 8
  )


def _elements(result: str) -> list[str]:
  """Splits the type of a tuple at its outermost commas."""
  parts, depth = [""], 0
  for letter in result[1:-1]:
    depth += (letter in "([{") - (letter in ")]}")
    if letter == "," and not depth:
      parts.append("")
    else:
      parts[-1] += letter
  return parts


def _bits(dtype: str) -> int:
  if dtype == "pred":
    return 8
  found = re.search(r"\d+", dtype)
  assert found  # _SHAPE asks for a digit
  return int(found[0])
