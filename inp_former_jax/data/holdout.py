"""Holds images out of training, chosen by the hashes of their names.

A model scores the images that it was trained on lower than others, so that
thresholds need normal images that it has not seen. The hash of its name decides
for each image, so that a draw needs no seed and hardly changes when images are
added.
"""

import collections
import dataclasses
import hashlib
import os
from collections.abc import Sequence
from typing import TypeVar

from inp_former_jax.data.image_files import ImageFile
from inp_former_jax.data.records import NORMAL, Dataset, Record

MOST = 100  # images that are held out of a category, at most

_File = TypeVar("_File", bound=ImageFile)


def rank(image: ImageFile) -> float:
  """Returns the place of an image in the order of the hashes, in [0, 1).

  Args:
    image: The image, of which only the last part of its path counts.
  """
  digest = hashlib.sha256(os.fsencode(image.name)).digest()
  return int.from_bytes(digest[:8], "big") / 2**64


def first_by_hash(images: Sequence[_File], count: int) -> list[_File]:
  """Returns the images whose names have the smallest hashes.

  Args:
    images: The images to choose from.
    count: The number of images to choose.
  """
  return sorted(images, key=rank)[:count]


def hold_out(
  dataset: Dataset,
  share: float,
  *,
  per_category: int = 1,
  in_total: int = 1,
) -> Dataset:
  """Moves a share of the normal training images to the validation images.

  Of a category with n normal training images, floor(share * n) are held out,
  but no more than MOST. A category that has validation images of its own keeps
  all its training images.

  Args:
    dataset: The data set; its defective training images stay where they are.
    share: The share of the normal training images to hold out, in [0, 1).
    per_category: The fewest normal training images that a category keeps.
    in_total: The fewest training images that the data set keeps. Where holding
      out would leave fewer, nothing is held out.

  Returns:
    The data set, with the images that are held out at the end of its
    validation images and all records in their order.
  """
  validated = {record.category for record in dataset.validation}
  normal: dict[str, list[Record]] = collections.defaultdict(list)
  for record in dataset.train:
    if record.label == NORMAL and record.category not in validated:
      normal[record.category].append(record)
  held: set[Record] = set()
  for records in normal.values():
    by_image = {record.image: record for record in records}
    # Without the small number, 0.29 of 100 would be 28.
    count = min(int(share * len(records) + 1e-9), MOST)
    count = max(0, min(count, len(records) - per_category))
    held |= {by_image[image] for image in first_by_hash([*by_image], count)}
  train = tuple(record for record in dataset.train if record not in held)
  if len(train) < in_total:
    return dataset
  moved = tuple(record for record in dataset.train if record in held)
  return dataclasses.replace(
    dataset, train=train, validation=dataset.validation + moved
  )
