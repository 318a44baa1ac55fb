"""The worst misses and false alarms: which, and that few maps are kept."""

import pathlib

import numpy as np

from inp_former_jax.data.records import Record
from inp_former_jax.evaluation import worst_cases as worst_cases_lib
from inp_former_jax.evaluation.worst_cases import (
  RunningWorstMaps,
  WorstCases,
  worst_cases,
)

LABELS = [0, 1] * 10 + [1, 0] * 10
RECORDS = [
  Record(pathlib.Path(f"{i}.png"), "ab"[i // 20], label, "good")
  for i, label in enumerate(LABELS)
]
# With ties, some of them at the edge of what is kept.
SCORES = np.random.default_rng(3).integers(0, 6, 40).astype(np.float32)


def maps_of(index: int) -> np.ndarray:
  return np.full((4, 4), index, np.float32)


def test_lowest_defects_and_highest_normal_images_are_chosen():
  records = RECORDS[:6]  # normal ones are 0, 2 and 4
  scores = np.array([0.1, 0.9, 0.3, 0.2, 0.3, 0.2])
  found = worst_cases(records, scores, 2)
  assert found == {"a": WorstCases(misses=(3, 5), false_alarms=(2, 4))}


def test_a_category_may_lack_a_kind():
  records = [RECORDS[1], RECORDS[3]]
  found = worst_cases(records, np.array([0.2, 0.1]), 5)
  assert found["a"] == WorstCases(misses=(1, 0), false_alarms=())


def test_running_maps_are_those_of_the_worst_in_any_order():
  chosen = {
    i
    for cases in worst_cases(RECORDS, SCORES).values()
    for i in (*cases.misses, *cases.false_alarms)
  }
  for seed in range(5):
    running = RunningWorstMaps(RECORDS)
    for index in np.random.default_rng(seed).permutation(40).tolist():
      running.add(index, float(SCORES[index]), maps_of(index))
    kept = sum(len(items) for items in running._kept.values())
    assert kept == len(chosen) == 4 * worst_cases_lib.CASES
    found = running.finish(SCORES, 4)
    assert set(found) == chosen
    for index, anomaly_map in found.items():
      np.testing.assert_array_equal(anomaly_map, maps_of(index))


def test_two_processes_together_have_the_maps_of_one(monkeypatch):
  shares = [RunningWorstMaps(RECORDS), RunningWorstMaps(RECORDS)]
  for index in range(40):
    shares[index % 3 == 0].add(index, float(SCORES[index]), maps_of(index))
  sent = [[], []]
  for process, share in enumerate(shares):
    monkeypatch.setattr(
      worst_cases_lib.exchange,
      "sum_over_processes",
      lambda array, own=sent[process]: own.append(array) or array,
    )
    share.finish(SCORES, 4)
  totals = iter([a + b for a, b in zip(*sent, strict=True)])
  monkeypatch.setattr(
    worst_cases_lib.exchange, "sum_over_processes", lambda array: next(totals)
  )
  for index, anomaly_map in shares[0].finish(SCORES, 4).items():
    np.testing.assert_array_equal(anomaly_map, maps_of(index))
