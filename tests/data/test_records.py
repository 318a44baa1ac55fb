import pathlib
import time

import pytest

from inp_former_jax.data.records import DEFECTIVE, NORMAL, Dataset, Record


def record(category: str, number: int, label: int = NORMAL) -> Record:
  path = pathlib.Path(f"{category}_{number}.png")
  return Record(path, category, label, "dent" if label else "good")


def test_test_records_are_sorted_by_category_in_the_order_of_training():
  train = tuple(record(category, 0) for category in ("nut", "bolt", "cap"))
  test = tuple(
    record(category, number, DEFECTIVE)
    for number in (1, 2)
    for category in ("cap", "nut", "gear", "bolt")
  )
  dataset = Dataset("parts", train, test)
  assert dataset.categories == ("nut", "bolt", "cap", "gear")
  sorted_records = dataset.test_by_category()
  assert [r.image.stem for r in sorted_records] == [
    f"{category}_{number}"
    for category in dataset.categories
    for number in (1, 2)
  ]


@pytest.mark.slow
def test_sorting_as_many_records_as_real_iad_has_takes_no_second():
  categories = [f"category_{i}" for i in range(30)]
  train = tuple(record(categories[i % 30], i) for i in range(36_465))
  test = tuple(record(categories[i % 30], i) for i in range(114_585))
  dataset = Dataset("realiad", train, test)
  start = time.perf_counter()
  assert len(dataset.test_by_category()) == len(test)
  assert time.perf_counter() - start < 1.0
