"""Makes the inputs of the training step: images, or features from a cache."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from inp_former_jax.data import loader, unreadable
from inp_former_jax.data.cache_key import cache_folder
from inp_former_jax.data.image_cache import cached_images
from inp_former_jax.data.ordered_batches import ordered_batches
from inp_former_jax.data.records import Dataset
from inp_former_jax.data.training_examples import epoch
from inp_former_jax.data.transforms import Preprocessing, load_image
from inp_former_jax.training import feature_cache, train_step
from inp_former_jax.training.feature_places import Features
from inp_former_jax.training.model_state import ModelState
from inp_former_jax.training.progress import announce

OFF, IMAGES, FEATURES = "off", "images", "features"
CACHES = (OFF, IMAGES, FEATURES)


@dataclasses.dataclass
class ImageInputs:
  """Images, from their files or from a cache.

  Attributes:
    batches: The batches of this process.
    mesh: The devices that train.
  """

  batches: loader.TrainingBatches
  mesh: Mesh
  _encode: Callable[..., jax.Array] | None = None

  def prepare(self, model: ModelState) -> None:
    """Reads no image, only makes the encoder's program if it is one.

    Args:
      model: The model of the run.
    """
    if train_step.encodes_apart(self.mesh):
      encode = train_step.jit_encode(
        model.graphdef, model.abstract_trainable, self.mesh
      )
      self._encode = functools.partial(encode, model.frozen)

  def arguments(self, batch: Mapping[str, jax.Array]) -> dict[str, Any]:
    """Returns the arguments of the training step, after `prepare`.

    They are images and augmentations, or the groups that an encoder of its own
    makes of them.

    Args:
      batch: A batch, as global arrays.
    """
    images, augmentation = batch["image"], batch.get("augmentation")
    if self._encode is not None:
      return {"groups": self._encode(images, augmentation)}
    return {"images": images, "augmentation": augmentation}

  def close(self) -> None:
    """Stops reading."""
    self.batches.close()


class FeatureInputs:
  """Features in place of images, in the same order.

  Attributes:
    batches: The batches of this process, which `prepare` must precede.
  """

  def __init__(self, compute: Callable[[ModelState], Features], **order: Any):
    """Builds batches of features that are computed later.

    Args:
      compute: Function that computes the features, or reads them.
      **order: The arguments of `loader.shuffled_batches` that decide the order.
    """
    self._compute = compute
    self._features: Features | None = None
    self.batches = loader.shuffled_batches(
      make_example=lambda number: self._ready().example(number), **order
    )

  def _ready(self) -> Features:
    assert self._features is not None  # `prepare` has been called
    return self._features

  def prepare(self, model: ModelState) -> None:
    """Computes the features that have not been computed before.

    Args:
      model: The model of the run.
    """
    self._features = self._compute(model)

  def arguments(self, batch: Mapping[str, jax.Array]) -> dict[str, Any]:
    """Returns the arguments of the training step: the groups.

    Args:
      batch: A batch, as global arrays.
    """
    return {"groups": self._ready().groups(batch)}

  def close(self) -> None:
    """Stops reading, and frees the memory of the features."""
    self.batches.close()
    self._features = None


TrainingInputs = ImageInputs | FeatureInputs


def training_inputs(
  config: ConfigDict,
  dataset: Dataset,
  preprocessing: Preprocessing,
  mesh: Mesh,
  workdir: pathlib.Path,
) -> TrainingInputs:
  """Returns the inputs of a run, by `config.cache`.

  Args:
    config: The config of the run.
    dataset: The data set of the run.
    preprocessing: The sizes to resize and crop to.
    mesh: The devices that train.
    workdir: The folder of the run, which gets the list of unreadable images.

  Raises:
    CacheError: If the cache cannot be written, or has no room.
    DataError: If there are fewer images than in a batch.
    ValueError: If `config.cache` is unknown, or keeps features while
      unreadable images are to be skipped.
  """
  if config.cache not in CACHES:
    raise ValueError(
      f"`cache` is {config.cache!r}; expected one of {', '.join(CACHES)}."
    )
  if config.cache == FEATURES:
    return _feature_inputs(config, dataset, preprocessing, mesh)
  return _image_inputs(config, dataset, preprocessing, mesh, workdir)


def _feature_inputs(
  config: ConfigDict,
  dataset: Dataset,
  preprocessing: Preprocessing,
  mesh: Mesh,
) -> FeatureInputs:
  if config.data.skip_unreadable:
    raise ValueError(
      "`skip_unreadable`=True cannot be used with `cache`=features, whose "
      "file would keep other images' features. Set `cache`=images or off."
    )
  augmented, sampling = config.data.shots > 0, config.data.sampling
  items, groups = epoch(dataset.train, augmented, sampling)
  compute = functools.partial(
    _compute_features, config, dataset, items, preprocessing, mesh
  )
  return FeatureInputs(
    compute,
    source=range(len(items)),
    groups=groups,
    batch_size=config.batch_size,
    seed=config.seed,
    num_threads=config.data.num_threads,
    **_process(),
  )


def _image_inputs(
  config: ConfigDict,
  dataset: Dataset,
  preprocessing: Preprocessing,
  mesh: Mesh,
  workdir: pathlib.Path,
) -> ImageInputs:
  load = functools.partial(load_image, preprocessing=preprocessing)
  if config.cache == IMAGES:
    folder = cache_folder(config.cache_dir)
    load = cached_images(dataset.train, preprocessing, folder, dataset.name)
    announce(f"Decoded images are kept in {load.rows.path}.")
  if config.data.skip_unreadable:
    load = unreadable.skipping_unreadable(
      dataset.train, load, workdir, jax.process_index()
    )
  batches = loader.training_batches(
    dataset.train,
    preprocessing,
    augmented=config.data.shots > 0,
    sampling=config.data.sampling,
    load=load,
    batch_size=config.batch_size,
    seed=config.seed,
    **_workers(config),
    **_process(),
  )
  return ImageInputs(batches, mesh)


def _compute_features(
  config: ConfigDict,
  dataset: Dataset,
  items: Sequence[Any],
  preprocessing: Preprocessing,
  mesh: Mesh,
  model: ModelState,
) -> Features:
  read = functools.partial(
    ordered_batches,
    items,
    load=functools.partial(load_image, preprocessing=preprocessing),
    batch_size=config.batch_size,
    **_workers(config),
    **_process(),
  )
  return feature_cache.prepare(
    model,
    mesh,
    dataset.train,
    preprocessing,
    read,
    augmented=config.data.shots > 0,
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


def _process() -> dict[str, int]:
  return {
    "process_index": jax.process_index(),
    "process_count": jax.process_count(),
  }
