"""Decides how often each training image is drawn, and in which order."""

from collections.abc import Sequence
from typing import Any

import grain

from inp_former_jax.data.records import Record

UNIFORM, CATEGORY, DATASET = "uniform", "category", "dataset"
SAMPLINGS = (UNIFORM, CATEGORY, DATASET)

# Practically endless, and still within 64 bits after multiplication.
EPOCHS = 1 << 40


def groups(records: Sequence[Record], sampling: str) -> list[list[int]]:
  """Divides records into groups that are drawn equally often.

  Args:
    records: The images to train on.
    sampling: The kind of unit that is drawn equally often: an image, as in the
      paper (UNIFORM), a category (CATEGORY), or a data set of a mixture
      (DATASET).

  Returns:
    The indices of the records of each group, in the order of the records.
    UNIFORM makes a single group.

  Raises:
    ValueError: If the sampling is not one of SAMPLINGS.
  """
  if sampling not in SAMPLINGS:
    raise ValueError(
      f"`sampling` is {sampling!r}; expected one of {', '.join(SAMPLINGS)}."
    )
  found: dict[str, list[int]] = {}
  for index, record in enumerate(records):
    key = {UNIFORM: "", CATEGORY: record.category, DATASET: record.source}
    found.setdefault(key[sampling], []).append(index)
  return list(found.values())


def uniform_order(
  source: Sequence[Any], epoch: int, seed: int
) -> grain.MapDataset:
  """Orders all items at random, in a new order for every epoch.

  Args:
    source: The items, with random access.
    epoch: The number of items in an epoch, a multiple of the batch size; the
      remaining items are left out of that epoch.
    seed: The seed of the random orders.

  Returns:
    An endless data set.
  """
  # Grain reshuffles on every repetition of what precedes `repeat`. Cutting the
  # order rather than the batches drops the rest of an epoch before decoding.
  order = grain.MapDataset.source(source).seed(seed).shuffle()[:epoch]
  return order.repeat(EPOCHS // epoch)


def balanced_order(
  source: Sequence[Any], groups: Sequence[Sequence[int]], seed: int
) -> grain.MapDataset:
  """Takes items from all groups in turn, each group in its own random order.

  Args:
    source: The items, with random access.
    groups: The indices into the source of each of the G groups.
    seed: The seed of the random orders.

  Returns:
    An endless data set. The k-th group provides its items k, k + G, k + 2 G,
    and so on; it passes over all of its own items before it repeats one.
  """
  parts = [
    grain.MapDataset.source([source[i] for i in group])
    .seed((seed + 1_000_003 * number) % 2**32)
    .shuffle()
    .repeat(EPOCHS // len(group))
    for number, group in enumerate(groups)
  ]
  return grain.MapDataset.mix(parts)
