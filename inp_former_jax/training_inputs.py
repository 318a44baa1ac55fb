"""Makes the inputs of the training step: images, or features from a cache."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from inp_former_jax.data import index_batches, loader
from inp_former_jax.data.cache_key import cache_folder
from inp_former_jax.data.image_cache import cached_images
from inp_former_jax.data.records import Dataset
from inp_former_jax.data.training_examples import epoch
from inp_former_jax.data.transforms import Preprocessing, load_image
from inp_former_jax.training import feature_cache, loop
from inp_former_jax.training.feature_places import Features
from inp_former_jax.training.model_state import ModelState
from inp_former_jax.training.progress import announce

OFF, IMAGES, FEATURES = "off", "images", "features"
CACHES = (OFF, IMAGES, FEATURES)


class TrainingInputs(Protocol):
  """Batches to train on, and what the step makes of them."""

  @property
  def batches(self) -> loop.ResumableBatches:
    """The batches of this process."""
    ...

  def prepare(self, model: ModelState) -> None:
    """Computes what must be there before the first step.

    Args:
      model: The model of the run.
    """
    ...

  def arguments(self, batch: Mapping[str, jax.Array]) -> dict[str, Any]:
    """Returns the arguments of the training step.

    Args:
      batch: A batch, as global arrays.
    """
    ...

  def close(self) -> None:
    """Stops reading, and frees the memory of what is cached."""
    ...


@dataclasses.dataclass
class ImageInputs:
  """Images, from their files or from a cache.

  Attributes:
    batches: The batches of this process.
  """

  batches: loader.TrainingBatches

  def prepare(self, model: ModelState) -> None:
    """Does nothing: images are read when they are needed."""

  def arguments(self, batch: Mapping[str, jax.Array]) -> dict[str, Any]:
    """Returns the images, and the numbers of their augmentations if any."""
    augmentation = batch.get("augmentation")
    return {"images": batch["image"], "augmentation": augmentation}

  def close(self) -> None:
    """Stops reading."""
    self.batches.close()


@dataclasses.dataclass
class FeatureInputs:
  """Features in place of images.

  Attributes:
    batches: The batches of this process.
    compute: Function that computes the features, or reads them.
  """

  batches: feature_cache.FeatureBatches
  compute: Callable[[ModelState], Features]

  def prepare(self, model: ModelState) -> None:
    """Computes the features that have not been computed before."""
    self.batches.features = self.compute(model)

  def arguments(self, batch: Mapping[str, jax.Array]) -> dict[str, Any]:
    """Returns the groups."""
    assert self.batches.features is not None  # `prepare` has been called
    return {"groups": self.batches.features.groups(batch)}

  def close(self) -> None:
    """Frees the memory of the features."""
    self.batches.close()


def training_inputs(
  config: ConfigDict,
  dataset: Dataset,
  preprocessing: Preprocessing,
  mesh: Mesh,
) -> TrainingInputs:
  """Returns the inputs of a run, by `config.cache`.

  Args:
    config: The config of the run.
    dataset: The data set of the run.
    preprocessing: The sizes to resize and crop to.
    mesh: The devices that train.

  Raises:
    CacheError: If the cache cannot be written, or has no room.
    DataError: If there are fewer images than in a batch.
    ValueError: If `config.cache` is unknown.
  """
  if config.cache not in CACHES:
    raise ValueError(
      f"`cache` is {config.cache!r}; expected one of {', '.join(CACHES)}."
    )
  processes = {
    "process_index": jax.process_index(),
    "process_count": jax.process_count(),
  }
  order: dict[str, Any] = processes | {
    "batch_size": config.batch_size,
    "seed": config.seed,
    "augmented": config.data.shots > 0,
    "sampling": config.data.sampling,
  }
  if config.cache == FEATURES:
    indices = index_batches.index_batches(dataset.train, **order)
    compute = functools.partial(
      _compute_features, config, dataset, preprocessing, mesh, processes
    )
    return FeatureInputs(feature_cache.FeatureBatches(indices), compute)
  load = None
  if config.cache == IMAGES:
    folder = cache_folder(config.cache_dir)
    load = cached_images(dataset.train, preprocessing, folder, dataset.name)
    announce(f"Decoded images are kept in {load.rows.path}.")
  batches = loader.training_batches(
    dataset.train, preprocessing, load=load, **_workers(config), **order
  )
  return ImageInputs(batches)


def _compute_features(
  config: ConfigDict,
  dataset: Dataset,
  preprocessing: Preprocessing,
  mesh: Mesh,
  processes: Mapping[str, int],
  model: ModelState,
) -> Features:
  augmented = config.data.shots > 0
  items, _ = epoch(dataset.train, augmented, config.data.sampling)
  read = functools.partial(
    index_batches.ordered_batches,
    items,
    load=functools.partial(load_image, preprocessing=preprocessing),
    batch_size=config.batch_size,
    **_workers(config),
    **processes,
  )
  return feature_cache.prepare(
    model,
    mesh,
    dataset.train,
    preprocessing,
    read,
    augmented=augmented,
    batch_size=config.batch_size,
    seed=config.seed,
    folder=cache_folder(config.cache_dir),
    name=dataset.name,
  )


def _workers(config: ConfigDict) -> dict[str, Any]:
  return {
    "num_workers": config.data.num_workers,
    "num_threads": config.data.num_threads,
  }
