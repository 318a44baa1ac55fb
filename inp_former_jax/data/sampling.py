"""How often an image comes: all alike, or all categories or data sets alike."""

from collections.abc import Sequence
from typing import Any

import grain

from inp_former_jax.data.records import Record

UNIFORM, CATEGORY, DATASET = "uniform", "category", "dataset"
SAMPLINGS = (UNIFORM, CATEGORY, DATASET)

# As good as endless, and still within 64 bits when it is multiplied.
EPOCHS = 1 << 40


def groups(records: Sequence[Record], sampling: str) -> list[list[int]]:
  """Which records come equally often together.

  Args:
    records: Images to train on.
    sampling: UNIFORM: every image alike, as in the paper; CATEGORY: every
      category alike; DATASET: every data set of a mixture alike.

  Returns:
    Indices of the records by group, in the order of the records.

  Raises:
    ValueError: The sampling is none of SAMPLINGS.
  """
  if sampling not in SAMPLINGS:
    raise ValueError(
      f"config.data.sampling is {sampling!r}; it can be {', '.join(SAMPLINGS)}."
    )
  found: dict[str, list[int]] = {}
  for index, record in enumerate(records):
    key = {UNIFORM: "", CATEGORY: record.category, DATASET: record.source}
    found.setdefault(key[sampling], []).append(index)
  return list(found.values())


def uniform_order(
  source: Sequence[Any], epoch: int, seed: int
) -> grain.MapDataset:
  """All items, in a new order every epoch.

  Args:
    source: Random access.
    epoch: Items of an epoch; what a full batch cannot take is left out of it.
    seed: Decides the orders.

  Returns:
    An endless data set.
  """
  # Grain reshuffles at every repetition of what is before `repeat`. Cutting
  # the order, not the batches, drops the rest of each epoch before decoding.
  order = grain.MapDataset.source(source).seed(seed).shuffle()[:epoch]
  return order.repeat(EPOCHS // epoch)


def balanced_order(
  source: Sequence[Any], groups: Sequence[Sequence[int]], seed: int
) -> grain.MapDataset:
  """Items of all groups in turn, each group in an order of its own.

  Args:
    source: Random access.
    groups: Indices of the source.
    seed: Decides the orders.

  Returns:
    An endless data set; the k-th group gives the items k, k + G, k + 2 G, ...
    and passes over all its own before one comes again.
  """
  parts = [
    grain.MapDataset.source([source[i] for i in group])
    .seed((seed + 1_000_003 * number) % 2**32)
    .shuffle()
    .repeat(EPOCHS // len(group))
    for number, group in enumerate(groups)
  ]
  return grain.MapDataset.mix(parts)
