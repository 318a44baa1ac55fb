"""Few-shot training: draws a few images and pairs them with augmentations."""

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

  The draw of a category depends only on its own images, its name and the seed,
  so it stays the same when other categories are left out. A draw of more shots
  includes the draw of fewer.

  Args:
    dataset: The data set to draw from.
    shots: k, the number of images per category, at least 1.
    seed: The seed of the draw, at least 0.

  Returns:
    The data set with k training images per category, in their original order;
    everything else is unchanged.

  Raises:
    DataError: If a category has fewer than k training images.
    ValueError: If k is below 1 or the seed below 0.
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
    # Sorted, so that the draw does not depend on the reader's order.
    found.sort(key=lambda place: str(dataset.train[place].image))
    # The first of a permutation, so that more shots include fewer.
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
  # Not hash(), which Python salts differently in every process.
  digest = hashlib.sha256(category.encode()).digest()
  return np.random.default_rng([seed, int.from_bytes(digest[:8], "big")])


def shots_table(dataset: Dataset) -> dict[str, list[str]]:
  """Lists the drawn images for the log.

  Args:
    dataset: A data set that `draw_shots` returned.

  Returns:
    A dict from each category to the names of its training images, or to their
    full paths if two images of the category have the same name.
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
  """Converts indices of records to indices of their `augmented_pairs`."""
  ways = len(AUGMENTATIONS)
  return [ways * i + k for i in indices for k in range(ways)]


def augmented_pairs(
  records: Sequence[Record],
) -> tuple[tuple[Record, int], ...]:
  """Pairs every image with every augmentation: an epoch of few-shot training.

  Args:
    records: The drawn images.

  Returns:
    22 pairs (record, index) per record, the unchanged image first. The index
    is a row of AUGMENTATIONS, as `augment` takes it.
  """
  return tuple(
    (record, index) for record in records for index in range(len(AUGMENTATIONS))
  )
