"""Runs a model over the records of a data set, in batches."""

import dataclasses
from collections.abc import Iterator, Sequence

import jax
import numpy as np

from inp_former_jax.data import loader
from inp_former_jax.data.records import Record
from inp_former_jax.inference.predict_step import Prediction
from inp_former_jax.inference.trained import TrainedModel


@dataclasses.dataclass(frozen=True)
class Reading:
  """Settings for reading records and putting them into batches.

  Attributes:
    batch_size: Number of images per global batch, which is rounded up to a
      multiple of the number of devices.
    num_workers: Number of processes that decode images; 0 for threads, and -1
      chooses, as `worker_processes.number_of_processes` says.
    num_threads: Number of threads that decode images.
  """

  batch_size: int
  num_workers: int = 0
  num_threads: int = 16


def predict_records(
  model: TrainedModel, records: Sequence[Record], reading: Reading
) -> Iterator[tuple[dict[str, np.ndarray], Prediction]]:
  """Predicts records and yields them in batches with their predictions.

  All processes of the model's mesh must call this function. A prediction is
  yielded when the next one has been started, so that the device does not wait
  for the host.

  Args:
    model: The model, with the preprocessing of its images.
    records: The records to predict, at least one.
    reading: Settings for reading the records.

  Yields:
    This process's part of a batch, as `loader.evaluation_batches` yields it but
    without the images, and the prediction of the global batch.

  Raises:
    DataError: If a file cannot be read; the error names the file.
    ValueError: If the model does not know the sizes of its images.
  """
  if model.preprocessing is None:
    raise ValueError(
      "The model does not know `resize` and `crop`, the sizes of the images "
      "that it was trained on: a converted checkpoint does not hold them. "
      "Give them when you load it: trained.load(workdir, "
      'expected={"data": {"resize": 448, "crop": 392}}).'
    )
  devices = model.mesh.size
  batches = loader.evaluation_batches(
    records,
    model.preprocessing,
    batch_size=-(-reading.batch_size // devices) * devices,
    evaluation_size=model.map_size,
    num_workers=reading.num_workers,
    num_threads=reading.num_threads,
    process_index=jax.process_index(),
    process_count=jax.process_count(),
  )
  before = None
  for batch in batches:
    under_way = batch, model.predict(batch.pop("image"))
    if before:
      yield before
    before = under_way
  if before:
    yield before
