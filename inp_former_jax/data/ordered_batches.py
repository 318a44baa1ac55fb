"""Batches of images in their own order, for what is computed of each once."""

import functools
from collections.abc import Callable, Sequence

import grain
import numpy as np

from inp_former_jax.data import loader
from inp_former_jax.data.image_files import ImageFile
from inp_former_jax.data.records import Record
from inp_former_jax.data.training_examples import Example, training_example
from inp_former_jax.data.worker_processes import number_of_processes


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
    num_workers: As for `loader.training_batches`.
    num_threads: The number of threads that decode if num_workers is 0.
    process_index: The index of this process among those that work together.
    process_count: The number of processes that work together.

  Returns:
    An iterator, with `close`, over dicts like those of
    `loader.training_batches`, to which `index`, (B',) int32, is added.

  Raises:
    ValueError: If process_count does not divide B.
  """
  local_size = loader.local_batch_size(batch_size, process_count)
  numbered = [(number, items[number]) for number in numbers]
  examples = grain.MapDataset.source(numbered).map(
    functools.partial(_numbered_example, load=load)
  )
  num_workers = number_of_processes(num_workers, len(numbers) // process_count)
  num_workers = min(num_workers, len(numbers) // batch_size)
  own = examples[process_index::process_count]
  return loader.batched(own, local_size, num_workers, num_threads)


def _numbered_example(
  numbered: tuple[int, Record | tuple[Record, int]],
  load: Callable[[ImageFile], np.ndarray],
) -> Example:
  number, item = numbered
  return {"index": np.int32(number), **training_example(item, load)}
