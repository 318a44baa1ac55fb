"""Batches of training without its images: their numbers, for a cache."""

from collections.abc import Callable, Sequence
from typing import Any

import grain
import numpy as np

from inp_former_jax.data import loader
from inp_former_jax.data import sampling as sampling_orders
from inp_former_jax.data.image_files import ImageFile
from inp_former_jax.data.records import Record
from inp_former_jax.data.training_examples import (
  Example,
  epoch,
  training_example,
)


def index_batches(
  records: Sequence[Record],
  *,
  batch_size: int,
  seed: int,
  augmented: bool = False,
  sampling: str = sampling_orders.UNIFORM,
  process_index: int = 0,
  process_count: int = 1,
) -> loader.TrainingBatches:
  """Returns the batches of `loader.training_batches` without their images.

  Args:
    records: The images to train on.
    batch_size: B, the number of images in a global batch.
    seed: The seed of the order, in [0, 2**32).
    augmented: Whether an epoch contains each image with all its augmentations.
    sampling: The kind of unit that is drawn equally often.
    process_index: The index of this process among those that train together.
    process_count: The number of processes that train together.

  Returns:
    An iterator like that of `loader.training_batches`, in the same order, over
    dict(index=(B',) int32), numbers of the items of `epoch`.

  Raises:
    DataError: If there are fewer records than images in a batch.
    ValueError: If process_count does not divide B, or sampling is unknown.
  """
  items, groups = epoch(records, augmented, sampling)
  return loader.shuffled_batches(
    range(len(items)),
    _index_example,
    batch_size=batch_size,
    seed=seed,
    groups=groups,
    num_threads=1,
    process_index=process_index,
    process_count=process_count,
  )


def ordered_batches(
  items: Sequence[Record | tuple[Record, int]],
  numbers: Sequence[int],
  load: Callable[[ImageFile], np.ndarray],
  *,
  batch_size: int,
  num_workers: int = 0,
  num_threads: int = 16,
  process_index: int = 0,
  process_count: int = 1,
) -> grain.DatasetIterator:
  """Returns batches of the images of some items, in their order.

  Args:
    items: The items of an `epoch`.
    numbers: The numbers of the items to yield; the batch size divides how many
      there are.
    load: A picklable function from the image file of a record to its pixels.
    batch_size: B, the number of images in a global batch.
    num_workers: The number of processes that decode; 0 decodes in threads.
    num_threads: The number of threads that decode if num_workers is 0.
    process_index: The index of this process among those that work together.
    process_count: The number of processes that work together.

  Returns:
    An iterator, with `close`, over dicts like those of
    `loader.training_batches`, to which `index`, (B',) int32, is added.

  Raises:
    ValueError: If process_count does not divide B.
  """
  numbered = [(number, items[number]) for number in numbers]
  examples = grain.MapDataset.source(numbered).map(_Numbered(load))
  return loader.batched(
    examples[process_index::process_count],
    loader.local_batch_size(batch_size, process_count),
    min(num_workers, len(numbers) // batch_size),
    num_threads,
  )


class _Numbered:
  """Function from a numbered item to its image and its number."""

  def __init__(self, load: Callable[[ImageFile], np.ndarray]):
    self._load = load

  def __call__(self, numbered: tuple[int, Any]) -> Example:
    number, item = numbered
    return {**_index_example(number), **training_example(item, self._load)}


def _index_example(number: int) -> Example:
  return {"index": np.int32(number)}
