"""Time and memory of the evaluation's metrics on any number of maps.

The maps are smooth noise, a fifth of them with a defective disc whose scores
are raised. They are made on the way, off the clock, so that their own memory
does not grow with their number. A subset is also given to scikit-learn's
exact functions, which sort all pixels, and to this package's exact AUPRO.
"""

import dataclasses
import pathlib
import time
from collections.abc import Iterator, Sequence

import jax.numpy as jnp
import numpy as np
import scipy.ndimage
import sklearn.metrics

from inp_former_jax.benchmarks import growth, memory
from inp_former_jax.data.records import Record
from inp_former_jax.evaluation import metrics
from inp_former_jax.evaluation.category_results import category_results
from inp_former_jax.evaluation.collector import Collector
from inp_former_jax.evaluation.drawing import grid
from inp_former_jax.evaluation.results import mean_metrics
from inp_former_jax.inference.predict_step import Prediction

_POOL = 40  # maps that all others are shifted and scaled copies of
_BATCH = 16
_SUBSET = 40  # maps that are given to the exact functions
_DEFECTIVE = 5  # every fifth map has a defect


@dataclasses.dataclass(frozen=True)
class MapsRun:
  """What the metrics of some maps took.

  Attributes:
    maps: Number of maps.
    categories: Number of categories that they are of.
    size: Side of a map in pixels.
    seconds: Seconds to count the maps and to compute all metrics.
    extra_bytes: The highest memory meanwhile, above that before the first run.
    whole_bytes: The highest memory of the whole process until then.
    metrics: The means of the metrics over the categories, by name, as fractions
      in [0, 1].
  """

  maps: int
  categories: int
  size: int
  seconds: float
  extra_bytes: int
  whole_bytes: int
  metrics: dict[str, float]


@dataclasses.dataclass(frozen=True)
class Exactness:
  """The metrics of the same maps by counting and by sorting all pixels.

  Attributes:
    maps: Number of maps.
    seconds: Seconds of the evaluation's metrics.
    exact_seconds: Seconds of the exact functions.
    counted: The evaluation's metrics by name.
    exact: The exact ones, by the same names.
  """

  maps: int
  seconds: float
  exact_seconds: float
  counted: dict[str, float]
  exact: dict[str, float]


class Source:
  """Maps and masks, made from a few that are kept.

  Attributes:
    size: Side of a map in pixels.
  """

  def __init__(self, size: int):
    """Makes the maps that are kept.

    Args:
      size: Side of a map in pixels.
    """
    self.size = size
    random = np.random.default_rng(0)
    shape = (_POOL, size, size)
    rows, columns = np.mgrid[:size, :size] / size
    self._masks = np.zeros(shape, bool)
    self._maps = np.zeros(shape, np.float32)
    for i in range(_POOL):
      noise = random.standard_normal((size, size)).astype(np.float32)
      noise = scipy.ndimage.gaussian_filter(noise, size / 64)
      self._maps[i] = 0.2 + 0.02 * noise / noise.std()
      if i % _DEFECTIVE == 0:
        y, x = random.uniform(0.2, 0.8, 2)
        radius = random.uniform(0.03, 0.12)
        self._masks[i] = np.hypot(rows - y, columns - x) < radius
    self._maps += 0.05 * self._masks

  def records(self, count: int, categories: int) -> list[Record]:
    """Makes the records of so many maps, one category after the other.

    Args:
      count: Number of maps.
      categories: Number of categories, at most `count`.
    """
    defective = self._masks.any(axis=(1, 2)).astype(int).tolist()
    return [
      Record(
        pathlib.Path(f"{i}.png"),
        f"category {i * categories // count}",
        defective[i % _POOL],
        "disc" if defective[i % _POOL] else "good",
      )
      for i in range(count)
    ]

  def batches(self, count: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields so many maps and masks, (n, size, size) each, in batches.

    Args:
      count: Number of maps.
    """
    random = np.random.default_rng(1)
    for start in range(0, count, _BATCH):
      chosen = np.arange(start, min(start + _BATCH, count)) % _POOL
      scale = random.uniform(0.9, 1.1, (len(chosen), 1, 1))
      yield self._maps[chosen] * scale.astype(np.float32), self._masks[chosen]


def measure(
  counts: Sequence[int],
  size: int,
  *,
  categories: int = 1,
  max_fpr: float = metrics.MAX_FPR,
) -> tuple[list[MapsRun], Exactness]:
  """Measures the metrics of several numbers of maps, the fewest first.

  Args:
    counts: Numbers of maps.
    size: Side of a map in pixels.
    categories: Number of categories that the maps are shared out among.
    max_fpr: False positive rate at which AUPRO is cut.

  Returns:
    What each number took, and a comparison with the exact functions.

  Raises:
    ValueError: If a number of maps is below 1 or that of the categories.
  """
  if not counts or min(counts) < 1:
    raise ValueError(f"--maps is {list(counts)}; expected numbers above 0.")
  if not 1 <= categories <= min(counts):
    raise ValueError(
      f"--categories is {categories}; expected a number from 1 to "
      f"{min(counts)}, the number of maps."
    )
  source = Source(size)
  before = memory.resident()
  _run(source, _BATCH, 1, max_fpr)  # what is slow only once
  runs = []
  for count in sorted(counts):
    with memory.Watch() as watch:
      values, seconds = _run(source, count, categories, max_fpr)
    runs.append(
      MapsRun(
        maps=count,
        categories=categories,
        size=size,
        seconds=seconds,
        extra_bytes=watch.highest - before,
        whole_bytes=memory.highest_resident(),
        metrics=values,
      )
    )
  return runs, _compare(source, min(max(counts), _SUBSET), max_fpr)


def _run(
  source: Source, count: int, categories: int, max_fpr: float
) -> tuple[dict[str, float], float]:
  """Computes the metrics as an evaluation does; also returns the seconds."""
  records = source.records(count, categories)
  start = time.perf_counter()
  collector = Collector(
    records,
    grid.colour_scale_records(records),
    map_size=source.size,
    exact=False,
    max_fpr=max_fpr,
  )
  seconds, first = time.perf_counter() - start, 0
  for maps, masks in source.batches(count):
    batch = {
      "index": np.arange(first, first + len(maps)),
      "valid": np.ones(len(maps), bool),
      "has_mask": np.ones(len(maps), bool),
      "mask": masks,
    }
    first += len(maps)
    scores = jnp.asarray(maps.max(axis=(1, 2)))
    prediction = Prediction(jnp.asarray(maps), scores)
    start = time.perf_counter()
    collector.add(batch, prediction)
    seconds += time.perf_counter() - start
  start = time.perf_counter()
  found = collector.finish()
  pixels = {name: result.metrics for name, result in found.pixels.items()}
  results = category_results(records, found.scores, pixels)
  values = mean_metrics(results.values())
  return values, seconds + time.perf_counter() - start


def _compare(source: Source, count: int, max_fpr: float) -> Exactness:
  counted, seconds = _run(source, count, 1, max_fpr)
  batches = list(source.batches(count))
  maps, masks = (np.concatenate(part) for part in zip(*batches, strict=True))
  start = time.perf_counter()
  labels, scores = masks.ravel(), maps.ravel()
  exact = {
    "pixel_auroc": sklearn.metrics.roc_auc_score(labels, scores),
    "pixel_ap": sklearn.metrics.average_precision_score(labels, scores),
    "pixel_aupro": metrics.aupro(maps, masks, max_fpr=max_fpr),
  }
  exact_seconds = time.perf_counter() - start
  return Exactness(
    maps=count,
    seconds=seconds,
    exact_seconds=exact_seconds,
    counted={name: counted[name] for name in exact},
    exact={name: float(value) for name, value in exact.items()},
  )


def format_table(runs: Sequence[MapsRun], exactness: Exactness) -> str:
  """Formats the results; memory is in megabytes (MB) of 10^6 bytes.

  Args:
    runs: What each number of maps took.
    exactness: The comparison with the exact functions.
  """
  size = runs[0].size
  lines = [
    f"metrics of maps of {size}x{size}, categories: {runs[0].categories}; MB "
    "above the start, and of the whole process",
    f"{'maps':>8}{'seconds':>9}{'ms a map':>10}{'MB':>7}{'whole':>7}",
  ]
  for run in runs:
    lines.append(
      f"{run.maps:>8,}{run.seconds:>9.2f}{1e3 * run.seconds / run.maps:>10.2f}"
      f"{run.extra_bytes / 1e6:>7.0f}{run.whole_bytes / 1e6:>7.0f}"
    )
  line = growth.fit(
    "metrics over the maps",
    "map",
    [run.maps for run in runs],
    [run.seconds for run in runs],
  )
  if line:
    lines.append(line.describe())
  lines.append(
    f"beside the exact functions, on {exactness.maps} maps: "
    f"{exactness.seconds:.2f} s, exact {exactness.exact_seconds:.2f} s"
  )
  for name, exact in exactness.exact.items():
    counted = exactness.counted[name]
    lines.append(
      f"  {name:<12} {counted:.7f}  exact {exact:.7f}  difference "
      f"{counted - exact:+.1e}"
    )
  return "\n".join(lines)
