"""The published counts of the public data sets."""

import pathlib

import pytest

from inp_former_jax.data.inspection import published
from inp_former_jax.data.records import Dataset, Record


def records_of(part: published.Published) -> Dataset:
  """Makes as many records as published, without files."""
  names = sorted(part.categories)

  def make(count: int, label: int) -> tuple[Record, ...]:
    return tuple(
      Record(pathlib.Path(f"{i}.png"), names[i % len(names)], label, "x")
      for i in range(count)
    )

  train, validation, normal, defective = part.counts.values()
  return Dataset(
    part.name,
    make(train, 0),
    make(normal, 0) + make(defective, 1),
    make(validation, 0),
  )


@pytest.mark.parametrize(
  ("part", "images"),
  [*zip(published.PUBLISHED, (5354, 3644, 10821, 1346, 151050), strict=True)],
)
def test_published_counts(part, images):
  assert sum(part.counts.values()) == images
  dataset = records_of(part)
  assert published.find_published(dataset) is part
  assert published.differences(dataset, part) == []
  fewer = Dataset("", dataset.train[:-1], dataset.test[:-2], dataset.validation)
  train, defective = part.counts["train"], part.counts["defective test"]
  assert published.differences(fewer, part) == [
    f"{train - 1:,} train images instead of {train:,}",
    f"{defective - 2:,} defective test images instead of {defective:,}",
  ]


def test_number_of_categories_of_the_published():
  numbers = [len(part.categories) for part in published.PUBLISHED]
  assert numbers == [15, 5, 12, 6, 30]
