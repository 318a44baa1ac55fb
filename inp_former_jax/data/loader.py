"""Batches of records, shuffled, resumable and split over processes by grain.

A batch is global: each of P processes yields every P-th of its images. The
order depends only on the seed, not on the number of processes, worker
processes or threads.
"""

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import grain
import numpy as np

from inp_former_jax.data import sampling as sampling_orders
from inp_former_jax.data.errors import DataError
from inp_former_jax.data.image_files import ImageFile
from inp_former_jax.data.masks import load_mask
from inp_former_jax.data.records import Record
from inp_former_jax.data.training_examples import (
  Example,
  epoch,
  training_example,
)
from inp_former_jax.data.transforms import Preprocessing, load_image
from inp_former_jax.data.worker_processes import (
  describe_death,
  let_grain_read_its_flags,
  number_of_processes,
  ready_worker,
)


def steps_per_epoch(num_records: int, batch_size: int) -> int:
  """Returns the number of full batches in one pass over the records."""
  return num_records // batch_size


def training_batches(
  records: Sequence[Record],
  preprocessing: Preprocessing,
  *,
  batch_size: int,
  seed: int,
  augmented: bool = False,
  sampling: str = sampling_orders.UNIFORM,
  num_workers: int = 0,
  num_threads: int = 16,
  process_index: int = 0,
  process_count: int = 1,
  load: Callable[[ImageFile], np.ndarray] | None = None,
) -> "TrainingBatches":
  """Returns endless batches of images, in a new order for every epoch.

  Args:
    records: The images to train on.
    preprocessing: The sizes to resize and crop to.
    batch_size: B, the number of images in a global batch.
    seed: The seed of the order, in [0, 2**32).
    augmented: Whether an epoch contains each image with all its 22
      augmentations (few-shot training) rather than each image once.
    sampling: The kind of unit that is drawn equally often, one of
      `sampling.SAMPLINGS`.
    num_workers: The number of processes that decode, each a whole batch; 0
      decodes in threads instead, and -1 chooses, as `number_of_processes` says.
    num_threads: The number of threads that decode if num_workers is 0.
    process_index: The index of this process among those that train together.
    process_count: The number of processes that train together.
    load: A picklable function from the image file of a record to its pixels,
      such as `image_cache.CachedImages`; `transforms.load_image` by default.

  Returns:
    An iterator over dict(image=(B', Hc, Wc, 3) uint8), with B' = B /
    process_count; if augmented, also augmentation=(B',) int32, the indices for
    `augment.augment`. It has `get_state` and `set_state`, and raises DataError
    for a file that cannot be read.

  Raises:
    DataError: If there are fewer records than images in a batch.
    ValueError: If process_count does not divide B, or sampling is unknown.
  """
  source, groups = epoch(records, augmented, sampling)
  load = load or functools.partial(load_image, preprocessing=preprocessing)
  return shuffled_batches(
    source,
    functools.partial(training_example, load=load),
    batch_size=batch_size,
    seed=seed,
    groups=groups,
    num_workers=num_workers,
    num_threads=num_threads,
    process_index=process_index,
    process_count=process_count,
  )


def shuffled_batches(
  source: Sequence[Any],
  make_example: Callable[[Any], Example],
  *,
  batch_size: int,
  seed: int,
  groups: Sequence[Sequence[int]] = (),
  num_workers: int = 0,
  num_threads: int = 16,
  process_index: int = 0,
  process_count: int = 1,
) -> "TrainingBatches":
  """Returns endless batches like `training_batches`, of examples of any kind.

  Args:
    source: The items, with random access.
    make_example: A function, which must be picklable for worker processes,
      from an item of the source to arrays of fixed shapes.
    batch_size: B, the number of examples in a global batch.
    seed: The seed of the order, in [0, 2**32).
    groups: Groups of indices of the source; every group is drawn equally
      often. By default every item is.
    num_workers: As for `training_batches`.
    num_threads: The number of threads that decode if num_workers is 0.
    process_index: The index of this process among those that train together.
    process_count: The number of processes that train together.

  Returns:
    An iterator like that of `training_batches`, over stacked examples.

  Raises:
    DataError: If there are fewer items than examples in a batch.
    ValueError: If process_count does not divide B.
  """
  local_size = local_batch_size(batch_size, process_count)
  steps = steps_per_epoch(len(source), batch_size)
  if steps < 1:
    raise DataError(
      f"A batch takes {batch_size} images, but there are only {len(source)} to "
      f"train on. Set `batch_size` to at most {len(source)}, or add images."
    )
  if len(groups) > 1:
    order = sampling_orders.balanced_order(source, groups, seed)
  else:
    order = sampling_orders.uniform_order(source, steps * batch_size, seed)
  examples = order[process_index::process_count].map(make_example)
  num_workers = number_of_processes(num_workers, len(source) // process_count)
  return TrainingBatches(examples, local_size, num_workers, num_threads)


class TrainingBatches(grain.DatasetIterator):
  """An iterator whose state is the number of batches it has yielded.

  Unlike grain's own state, it depends neither on the number of workers nor on
  the number of processes, so a run can resume on another machine.
  """

  def __init__(
    self,
    examples: grain.MapDataset,
    batch_size: int,
    num_workers: int,
    num_threads: int,
  ):
    """Creates an iterator that starts at the first batch.

    Args:
      examples: The endless examples of this process.
      batch_size: The number of examples in a batch of this process.
      num_workers: The number of processes that decode; 0 decodes in threads.
      num_threads: The number of threads that decode if num_workers is 0.
    """
    super().__init__()
    self._open = lambda start: batched(
      examples[start * batch_size :], batch_size, num_workers, num_threads
    )
    self._batches = None
    self._next_batch = 0

  def __next__(self) -> dict[str, np.ndarray]:
    """Returns the next batch."""
    self._assert_not_closed()
    if self._batches is None:
      self._batches = self._open(self._next_batch)
    try:
      batch = next(self._batches)
    except DataError:
      self._stop()  # The next call fails again instead of skipping the file.
      raise
    except RuntimeError as error:
      death = describe_death(error)
      if not death:
        raise
      raise RuntimeError(death) from error
    self._next_batch += 1
    return batch

  def get_state(self) -> dict[str, Any]:
    """Returns the position in a form that JSON can hold."""
    return {"next_batch": self._next_batch}

  def set_state(self, state: dict[str, Any]) -> None:
    """Moves to a position that `get_state` returned.

    Args:
      state: The state of an iterator with the same records, batch size and
        seed.
    """
    self._stop()
    self._next_batch = int(state["next_batch"])

  def close(self) -> None:
    """Stops the threads or processes."""
    self._stop()
    super().close()

  def _stop(self) -> None:
    if self._batches is not None:
      self._batches.close()
    self._batches = None


def evaluation_batches(
  records: Sequence[Record],
  preprocessing: Preprocessing,
  *,
  batch_size: int,
  evaluation_size: int,
  num_workers: int = 0,
  num_threads: int = 16,
  process_index: int = 0,
  process_count: int = 1,
) -> Iterator[dict[str, np.ndarray]]:
  """Returns batches of all images and masks once, in the order of the records.

  All batches have the same shapes, and all processes yield the same number of
  batches: the last batch is filled up with zeros.

  Args:
    records: The images to evaluate.
    preprocessing: The sizes to resize and crop to.
    batch_size: B, the number of images in a global batch.
    evaluation_size: S, the side of the masks in pixels.
    num_workers: As for `training_batches`.
    num_threads: The number of threads that decode if num_workers is 0.
    process_index: The index of this process among those that evaluate together.
    process_count: The number of processes that evaluate together.

  Returns:
    An iterator over dicts, with B' = B / process_count:
      image: The images, (B', Hc, Wc, 3) uint8.
      mask: The masks, (B', S, S) bool, True where defective.
      has_mask: (B',) bool, False for a defective image without a mask.
      index: (B',) int32, the indices of the records, -1 for filling.
      valid: (B',) bool, False for filling.
    It raises DataError for a file that cannot be read.

  Raises:
    DataError: If there are no records.
    ValueError: If process_count does not divide B.
  """
  local_size = local_batch_size(batch_size, process_count)
  if not records:
    raise DataError(
      "There are no test images. Put some into <category>/test/good and "
      "<category>/test/<defect>."
    )
  num_batches = math.ceil(len(records) / batch_size)
  examples = grain.MapDataset.range(num_batches * batch_size).map(
    functools.partial(
      _evaluation_example,
      records=records,
      preprocessing=preprocessing,
      evaluation_size=evaluation_size,
    )
  )[process_index::process_count]
  num_workers = number_of_processes(num_workers, len(records) // process_count)
  num_workers = min(num_workers, num_batches)
  return batched(examples, local_size, num_workers, num_threads)


def local_batch_size(batch_size: int, process_count: int) -> int:
  """Returns the images of a global batch that each process yields."""
  if batch_size < 1 or batch_size % process_count:
    raise ValueError(
      f"The batch size is {batch_size}; expected a multiple of the number of "
      f"processes, {process_count}, above 0."
    )
  return batch_size // process_count


def batched(
  examples: grain.MapDataset,
  batch_size: int,
  num_workers: int,
  num_threads: int,
) -> grain.DatasetIterator:
  """Makes and batches examples in the background, in their order.

  Args:
    examples: The examples of this process.
    batch_size: The number of examples in a batch of this process.
    num_workers: The number of processes that make them; 0 for threads.
    num_threads: The number of threads that make them if num_workers is 0.
  """
  if num_workers == 0:
    options = grain.ReadOptions(num_threads, max(num_threads, 2 * batch_size))
    dataset = examples.to_iter_dataset(options).batch(batch_size)
    return iter(dataset)
  let_grain_read_its_flags()
  # Grain distributes what precedes `to_iter_dataset` over the workers. If that
  # were examples, the number of workers would decide what is in a batch.
  dataset = examples.batch(batch_size).to_iter_dataset(grain.ReadOptions(0, 0))
  options = grain.MultiprocessingOptions(num_workers, per_worker_buffer_size=2)
  return iter(dataset.mp_prefetch(options, worker_init_fn=ready_worker))


def _evaluation_example(
  index: int,
  records: Sequence[Record],
  preprocessing: Preprocessing,
  evaluation_size: int,
) -> Example:
  valid = index < len(records)
  image = np.zeros((*preprocessing.crop, 3), np.uint8)
  mask = np.zeros((evaluation_size, evaluation_size), bool)
  has_mask = False
  if valid:
    record = records[index]
    image = load_image(record.image, preprocessing)
    has_mask = record.label == 0 or bool(record.masks)
    if record.masks:
      mask = load_mask(
        record.masks,
        preprocessing,
        evaluation_size,
        values=record.mask_values,
        image_path=record.image,
      )
  return {
    "image": image,
    "mask": mask,
    "has_mask": np.bool_(has_mask),
    "index": np.int32(index if valid else -1),
    "valid": np.bool_(valid),
  }
