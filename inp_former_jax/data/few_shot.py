"""Few-shot training: which images are drawn, and how they are multiplied."""

import collections
import dataclasses
import hashlib
from collections.abc import Sequence

import numpy as np

from inp_former_jax.data.augment import AUGMENTATIONS
from inp_former_jax.data.errors import DataError
from inp_former_jax.data.records import Dataset, Record


def draw_shots(dataset: Dataset, shots: int, seed: int) -> Dataset:
  """Keeps a few training images of each category, drawn at random.

  The draw of a category depends on its own images, its name and the seed
  alone: it stays the same when other categories are left out. A draw of more
  shots holds that of fewer.

  Args:
    dataset: Any.
    shots: k, images per category, at least 1.
    seed: At least 0.

  Returns:
    The data set with k training images per category, in their order; all else
    is untouched.

  Raises:
    DataError: A category has fewer than k training images.
    ValueError: k or the seed is too small.
  """
  if shots < 1:
    raise ValueError(f"The number of shots is {shots}; expected at least 1.")
  if seed < 0:
    raise ValueError(f"The seed is {seed}; expected at least 0.")
  places = {category: [] for category in dataset.categories}
  for place, record in enumerate(dataset.train):
    places[record.category].append(place)
  counts = {category: len(found) for category, found in places.items()}
  _require_enough(dataset.name, counts, shots)
  drawn = []
  for category, found in places.items():
    # Sorted, so that it does not matter how a reader orders them.
    found.sort(key=lambda place: str(dataset.train[place].image))
    # The first of a permutation, so that more shots hold fewer.
    order = _generator(category, seed).permutation(len(found))[:shots]
    drawn += [found[i] for i in order]
  train = tuple(dataset.train[place] for place in sorted(drawn))
  return dataclasses.replace(dataset, train=train)


def _require_enough(name: str, counts: dict[str, int], shots: int) -> None:
  few = {category: n for category, n in counts.items() if n < shots}
  if not few:
    return
  found = ", ".join(f"{category} has {n}" for category, n in few.items())
  most = min(few.values())
  lower = f"Set the shots to at most {most}, add" if most else "Add"
  raise DataError(
    f"{name}: {shots} shots need {shots} normal training images per category; "
    f"{found}. {lower} images, or leave out such a category."
  )


def _generator(category: str, seed: int) -> np.random.Generator:
  # Not hash(): Python salts it anew in every process.
  digest = hashlib.sha256(category.encode()).digest()
  return np.random.default_rng([seed, int.from_bytes(digest[:8], "big")])


def shots_table(dataset: Dataset) -> dict[str, list[str]]:
  """What was drawn, for the log.

  Args:
    dataset: As `draw_shots` gives it.

  Returns:
    Category -> names of its training images; whole paths where two of a
    category have the same name.
  """
  images = collections.defaultdict(list)
  for record in dataset.train:
    images[record.category].append(record.image)
  table = {}
  for category, files in images.items():
    names = [file.name for file in files]
    if len(set(names)) < len(names):
      names = [str(file) for file in files]
    table[category] = names
  return table


def pair_indices(indices: Sequence[int]) -> list[int]:
  """Indices of records -> indices of all their pairs in `augmented_pairs`."""
  ways = len(AUGMENTATIONS)
  return [ways * i + k for i in indices for k in range(ways)]


def augmented_pairs(
  records: Sequence[Record],
) -> tuple[tuple[Record, int], ...]:
  """What few-shot training passes over: every image in all its ways.

  Args:
    records: The drawn images.

  Returns:
    22 pairs (record, row of AUGMENTATIONS) per record, the image itself first;
    the second goes to `augment` with the image.
  """
  return tuple(
    (record, index) for record in records for index in range(len(AUGMENTATIONS))
  )
