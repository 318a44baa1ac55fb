"""A model over the records of a data set: batches and their predictions."""

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
  """How records are read and put into batches.

  Attributes:
    batch_size: Number of images per global batch; rounded up so that all
      devices share it evenly.
    num_workers: Number of processes that decode images; 0 for threads.
    num_threads: Number of threads that decode images.
  """

  batch_size: int
  num_workers: int = 0
  num_threads: int = 16


def predict_records(
  model: TrainedModel, records: Sequence[Record], reading: Reading
) -> Iterator[tuple[dict[str, np.ndarray], Prediction]]:
  """Gives batches of this process's records with their predictions.

  A prediction is handed out when the next one is under way, so that the
  device does not wait for the host.

  Args:
    model: The model, with the preprocessing of its images. All processes of
      its mesh call this.
    records: The records to predict, at least one.
    reading: How they are read.

  Yields:
    A batch as `loader.evaluation_batches` gives it, without its images; and
    the prediction of the global batch.

  Raises:
    DataError: If a file cannot be read; it is named.
    ValueError: If the model does not know the sizes of its images.
  """
  if model.preprocessing is None:
    raise ValueError(
      "The model does not know data.resize and data.crop, the sizes of the "
      "images it was trained on: a converted checkpoint does not hold them. "
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
