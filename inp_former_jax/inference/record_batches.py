"""A model over records: batches and what is predicted of them."""

from collections.abc import Callable, Iterator, Sequence

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from inp_former_jax import experiment, sharding
from inp_former_jax.data import loader
from inp_former_jax.data.records import Record
from inp_former_jax.inference.predict_step import Prediction


def predict_records(
  predict: Callable[[jax.Array], Prediction],
  records: Sequence[Record],
  config: ConfigDict,
  mesh: Mesh,
) -> Iterator[tuple[dict[str, np.ndarray], Prediction]]:
  """Batches of this process's records with their predictions.

  A prediction is handed out when the next one is under way, so that the
  device does not wait for the host.

  Args:
    predict: Global batch of images uint8 (B, H, W, 3) -> Prediction.
    records: What to predict.
    config: The run's config.
    mesh: Over all devices of all processes, each of which calls this.

  Yields:
    A batch as `loader.evaluation_batches` gives it, without its images; and
    the prediction of the global batch.

  Raises:
    DataError: A file cannot be read; named.
  """
  # Rounded up so that all devices share a batch evenly.
  batch_size = -(-config.evaluation.batch_size // mesh.size) * mesh.size
  batches = loader.evaluation_batches(
    records,
    experiment.preprocessing(config),
    batch_size=batch_size,
    evaluation_size=config.evaluation.size,
    num_workers=config.data.num_workers,
    num_threads=config.data.num_threads,
    process_index=jax.process_index(),
    process_count=jax.process_count(),
  )
  before = None
  for batch in batches:
    image = sharding.to_global(
      batch.pop("image"), sharding.batch_sharding(mesh)
    )
    under_way = batch, predict(image)
    if before:
      yield before
    before = under_way
  if before:
    yield before
