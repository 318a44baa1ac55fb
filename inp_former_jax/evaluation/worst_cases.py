"""Keeps the maps of the worst misses and false alarms of each category."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from inp_former_jax.data.records import DEFECTIVE, NORMAL, Record
from inp_former_jax.processes import exchange

CASES = 3  # of each kind and category


@dataclasses.dataclass(frozen=True)
class WorstCases:
  """The worst misses and false alarms of a category, the worst first.

  Attributes:
    misses: Indices of the defective records with the lowest scores.
    false_alarms: Indices of the normal records with the highest scores.
  """

  misses: tuple[int, ...]
  false_alarms: tuple[int, ...]


def worst_cases(
  records: Sequence[Record], scores: np.ndarray, count: int = CASES
) -> dict[str, WorstCases]:
  """Chooses the worst misses and false alarms of each category.

  Args:
    records: The test records.
    scores: The image score of each record, (len(records),).
    count: Number of records of each kind, or fewer if there are fewer.

  Returns:
    The worst cases by category. Of equal scores, the first record is worse.
  """
  by_category: dict[str, list[int]] = {}
  for index, record in enumerate(records):
    by_category.setdefault(record.category, []).append(index)

  def worst(indices: Sequence[int], label: int) -> tuple[int, ...]:
    found = [i for i in indices if records[i].label == label]
    order = sorted(found, key=lambda i: _badness(label, scores[i], i))
    return tuple(order[:count])

  return {
    category: WorstCases(worst(indices, DEFECTIVE), worst(indices, NORMAL))
    for category, indices in by_category.items()
  }


def _badness(label: int, score: float, index: int) -> tuple[float, int]:
  """Returns what records of one label are sorted by, the worst first."""
  return (score if label == DEFECTIVE else -score), index


class RunningWorstMaps:
  """Keeps the maps of the worst cases seen so far, and no other.

  Each process sees some of the records. The worst of all processes are also
  among the worst of the process that saw them, so nothing is exchanged before
  all scores are known.
  """

  def __init__(self, records: Sequence[Record], count: int = CASES):
    """Starts without any maps.

    Args:
      records: All records.
      count: Number of maps of each kind that are kept per category.
    """
    self._records, self._count = records, count
    self._kept: dict[
      tuple[str, int], list[tuple[tuple[float, int], np.ndarray]]
    ] = {}

  def add(self, index: int, score: float, anomaly_map: np.ndarray) -> None:
    """Keeps a map if it is among the worst.

    Args:
      index: Index of the record.
      score: Its image score.
      anomaly_map: Its anomaly map, (S, S), which is copied if it is kept.
    """
    record = self._records[index]
    key = _badness(record.label, score, index)
    kept = self._kept.setdefault((record.category, record.label), [])
    if len(kept) >= self._count and key >= kept[-1][0]:
      return
    kept.append((key, anomaly_map.copy()))
    kept.sort(key=lambda item: item[0])
    del kept[self._count :]

  def finish(self, scores: np.ndarray, map_size: int) -> dict[int, np.ndarray]:
    """Collects the maps from all processes, which must all call this.

    Args:
      scores: The image scores of all records, equal on all processes.
      map_size: Side S of the anomaly maps.

    Returns:
      The maps, (S, S) float32, of the records that `worst_cases` chooses, by
      their index.
    """
    own = {key[1]: m for kept in self._kept.values() for key, m in kept}
    missing = np.zeros((map_size, map_size), np.float32)
    result: dict[int, np.ndarray] = {}
    # One category at a time, so that little is exchanged at once.
    for cases in worst_cases(self._records, scores, self._count).values():
      chosen = [*cases.misses, *cases.false_alarms]
      if chosen:
        maps = np.stack([own.get(index, missing) for index in chosen])
        found = exchange.sum_over_processes(maps.astype(np.float32))
        result |= dict(zip(chosen, found, strict=True))
    return result
