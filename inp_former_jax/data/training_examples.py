"""What an epoch of training consists of, and how an image of it is read."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from inp_former_jax.data import few_shot
from inp_former_jax.data import sampling as sampling_orders
from inp_former_jax.data.image_files import ImageFile
from inp_former_jax.data.records import Record

Example = Mapping[str, np.ndarray | np.generic]  # Not stacked into a batch yet.


def epoch(
  records: Sequence[Record], augmented: bool, sampling: str
) -> tuple[Sequence[Any], Sequence[Sequence[int]]]:
  """Returns what an epoch consists of, before it is put into an order.

  Args:
    records: The images to train on.
    augmented: Whether it contains each image with all its augmentations.
    sampling: The kind of unit that is drawn equally often.

  Returns:
    The items, records or `few_shot.augmented_pairs`, and the groups of their
    indices that are drawn equally often.
  """
  groups = sampling_orders.groups(records, sampling)
  if not augmented:
    return records, groups
  pairs = few_shot.augmented_pairs(records)
  return pairs, [few_shot.pair_indices(group) for group in groups]


def training_example(
  item: Record | tuple[Record, int], load: Callable[[ImageFile], np.ndarray]
) -> Example:
  """Reads an image to train on.

  Args:
    item: A record, or a record and the number of an augmentation.
    load: A function from the image file of a record to its pixels.

  Returns:
    dict(image=(Hc, Wc, 3) uint8), and augmentation, an int32, if there is one.
  """
  if isinstance(item, Record):
    return {"image": load(item.image)}
  record, augmentation = item
  return {
    "image": load(record.image),
    "augmentation": np.int32(augmentation),
  }
