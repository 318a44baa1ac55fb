"""Answers for images: score, decision, and a map at the image's own size."""

import dataclasses
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Any

import jax
import numpy as np

from inp_former_jax import sharding
from inp_former_jax.data.errors import DataError
from inp_former_jax.data.image_files import ImageSource
from inp_former_jax.data.transforms import Preprocessing
from inp_former_jax.inference import trained
from inp_former_jax.inference.answer import (
  FROM_FOLDER,
  Answer,
  Source,
  category_of_folder,
  make_answer,
)
from inp_former_jax.inference.calibration import (
  Calibration,
  Options,
  find_calibration,
)
from inp_former_jax.inference.framing import geometry, pictures
from inp_former_jax.inference.framing.parallel import ordered_map
from inp_former_jax.inference.framing.pictures import Framing, Item, Picture
from inp_former_jax.inference.framing.regions import load_regions
from inp_former_jax.inference.framing.tiling import check_tile
from inp_former_jax.inference.trained import TrainedModel

NUM_THREADS = 16


class Predictor:
  """A trained model that answers for images of any kind and number.

      predictor = Predictor.load("workdir/demo")
      answer = predictor("photo.png")
      for answer in predictor("folder"):
        print(answer.source, answer.score, answer.is_anomalous)

  Images are decoded in threads while the device works, and memory does not
  grow with their number. EXIF orientation is ignored, as in training.
  """

  def __init__(
    self,
    model: TrainedModel,
    *,
    batch_size: int = 16,
    calibration: Calibration | None = None,
    tile: tuple[int, int, int] | None = None,
    keep_aspect: bool = False,
    ignore: str | os.PathLike | np.ndarray | None = None,
    num_threads: int = NUM_THREADS,
  ):
    """Creates a predictor from a model; `load` also finds its calibration.

    Args:
      model: The model, which knows the sizes of its images.
      batch_size: Number of images that the model is given at once, rounded up
        to a multiple of the number of devices.
      calibration: The thresholds, made with the same options.
      tile: Height, width and overlap in pixels of the tiles in which large
        images are inspected; None inspects an image whole.
      keep_aspect: Whether an image keeps its aspect ratio when it is resized,
        instead of taking that of the training images. Every aspect ratio
        compiles once more.
      ignore: Regions that never count: a mask or a file, see
        `regions.load_regions`.
      num_threads: Number of threads that decode images.

    Raises:
      DataError: If the regions to ignore cannot be read.
      ValueError: If an option is out of range, or if the model does not know
        the sizes of its images.
    """
    if model.preprocessing is None:
      raise ValueError(
        "The model does not know `resize` and `crop`, the sizes of the images "
        "that it was trained on: a converted checkpoint does not hold them. "
        "Give both when you load it, for example resize=448 and crop=392."
      )
    if batch_size < 1:
      raise ValueError(f"`batch_size` is {batch_size}; expected 1 or more.")
    if tile:
      check_tile(tile)
    self.model, self.calibration = model, calibration
    self._devices = model.mesh.size
    self.batch_size = -(-batch_size // self._devices) * self._devices
    self._num_threads = num_threads
    self._framing = Framing(
      preprocessing=model.preprocessing,
      patch_size=model.settings.spec.patch_size,
      top_fraction=model.top_fraction,
      map_size=model.map_size,
      tile=tile,
      keep_aspect=keep_aspect,
      ignored=None if ignore is None else load_regions(ignore),
    )

  @classmethod
  def load(
    cls,
    workdir: str | os.PathLike,
    device: str | jax.Device | None = None,
    batch_size: int = 16,
    *,
    tile: tuple[int, int, int] | None = None,
    keep_aspect: bool = False,
    ignore: str | os.PathLike | np.ndarray | None = None,
    zero_shot: bool = False,
    resize: int | None = None,
    crop: int | None = None,
    dtype: str | None = None,
    encoder_weights: str | None = None,
    num_threads: int = NUM_THREADS,
    use: str = "newest",
  ) -> "Predictor":
    """Loads a checkpoint of a folder, and its calibration.

    Args:
      workdir: Folder of a run, or of a converted checkpoint.
      device: A device, or the kind of the devices to use, such as "cpu" or
        "gpu"; None uses all of the default kind.
      batch_size: Number of images that the model is given at once.
      tile: See `__init__`, as for `keep_aspect`, `ignore` and `num_threads`.
      keep_aspect: See `__init__`.
      ignore: See `__init__`.
      zero_shot: Whether a patch is scored by its distance to the nearest INP of
        its own image, which suits a model that was trained on other products.
      resize: Side in pixels to which images are resized, for a converted
        checkpoint, which does not hold it.
      crop: Side in pixels of the centre crop, likewise.
      dtype: Compute dtype; by default that of the run.
      encoder_weights: Source of the encoder's weights; by default that of the
        run.
      num_threads: See `__init__`.
      use: Which checkpoint, "newest" or "best".

    Returns:
      The predictor. Its `calibration` is None if there is none of this
      checkpoint with these options.

    Raises:
      CheckpointError: If there is no checkpoint that can be read.
      DataError: If the regions to ignore cannot be read.
      FileNotFoundError, ValueError: If the encoder's weights cannot be found,
        or an option is out of range.
    """
    sizes = {"resize": resize, "crop": crop}
    given = {key: value for key, value in sizes.items() if value is not None}
    model = trained.load(
      workdir,
      sharding.local_mesh(device),
      expected={"data": given} if given else None,
      encoder_weights=encoder_weights,
      dtype=dtype,
      zero_shot=zero_shot,
      use=use,
    )
    predictor = cls(
      model,
      batch_size=batch_size,
      tile=tile,
      keep_aspect=keep_aspect,
      ignore=ignore,
      num_threads=num_threads,
    )
    folder = pathlib.Path(workdir).expanduser().absolute()
    predictor.calibration = find_calibration(
      folder, model.step, predictor.options
    )
    return predictor

  @property
  def options(self) -> Options:
    """The way in which images are looked at, which a calibration must share."""
    ignored = self._framing.ignored
    return dataclasses.replace(
      self.model.options,
      tile=self._framing.tile,
      keep_aspect=self._framing.keep_aspect,
      ignored=ignored.sha256 if ignored else "",
    )

  @property
  def preprocessing(self) -> Preprocessing:
    """The sizes to which images are resized and cropped."""
    return self._framing.preprocessing

  @property
  def uninspected_share(self) -> float:
    """The share of every image's area that is not inspected, in [0, 1)."""
    if self._framing.tile:
      return 0.0
    return geometry.uninspected_share(self.preprocessing)

  def __call__(self, images: Any, *, category: str = FROM_FOLDER) -> Any:
    """Answers for one image or for many.

    Args:
      images: One image: a path, a PIL image, or an array (H, W, 3) or (H, W) of
        uint8. Or many: a folder, which is searched with its subfolders, a
        batch (B, H, W, 3), or an iterable of any of these.
      category: The category whose thresholds are used; ALL ("") takes those of
        the whole model. By default it is the nearest folder above an image that
        is named like a category, as in data sets, or else ALL.

    Returns:
      An `Answer` for one image, an iterator over them for many.

    Raises:
      DataError: If a file cannot be read; for many images, while they are
        iterated over.
      ValueError: If an array is not an image, or the category is unknown.
    """
    if isinstance(images, str | os.PathLike):
      one = not pathlib.Path(images).expanduser().is_dir()
    else:
      one = pictures.is_image(images)
    answers = self.stream(images, category=category)
    return next(answers) if one else answers

  def stream(
    self,
    images: Any,
    *,
    category: str | Callable[[Source], str] = FROM_FOLDER,
    on_error: Callable[[Source, DataError], None] | None = None,
  ) -> Iterator[Answer]:
    """Answers for many images, in order, with flat memory.

    Args:
      images: A folder, a batch (B, H, W, 3), or an iterable, as for `__call__`.
      category: As for `__call__`, or a function from an image's source to its
        category.
      on_error: Called for a file that cannot be read, which then has no answer;
        None raises the error.

    Returns:
      The answers, in the order of the images.

    Raises:
      DataError: If a folder holds no images; while iterating, if a file cannot
        be read.
      ValueError: If the category is unknown.
    """
    name = self._category_function(category)
    items = pictures.flat(images)
    size = self.batch_size
    if isinstance(items, list) and len(items) == 1 and not self._framing.tile:
      size = self._devices  # a single image does not have to fill a batch
    return self._answers(items, name, on_error, size)

  def _category_function(
    self, category: str | Callable[[Source], str]
  ) -> Callable[[Source], str]:
    if callable(category):
      return category
    known = self.calibration.thresholds if self.calibration else {}
    if category == FROM_FOLDER and category not in known:
      return lambda source: category_of_folder(source, known)
    if known and category not in known:
      names = ", ".join(filter(None, known)) or "the whole model alone"
      raise ValueError(
        f"`category` is {category!r}, which has no thresholds of its own; "
        f"there are those of {names}."
      )
    return lambda _: category

  def _answers(
    self,
    items: Iterable[Item],
    category: Callable[[Source], str],
    on_error: Callable[[Source, DataError], None] | None,
    batch_size: int,
  ) -> Iterator[Answer]:
    with ThreadPoolExecutor(self._num_threads) as executor:
      inputs = self._inputs(executor, items, on_error, batch_size)
      for picture in self._predicted(inputs, batch_size):
        anomaly_map, score = picture.result()
        yield make_answer(
          picture.source,
          score,
          anomaly_map,
          self.calibration,
          category(picture.source),
        )

  def _inputs(
    self,
    executor: Executor,
    items: Iterable[Item],
    on_error: Callable[[Source, DataError], None] | None,
    batch_size: int,
  ) -> Iterator[pictures.Input]:
    """Decodes in the background and yields the inputs of all pictures."""
    tiled = self._framing.tile is not None
    make = pictures.TiledPicture if tiled else pictures.WholePicture

    def prepare(numbered: tuple[int, Item]) -> Picture | tuple:
      number, item = numbered
      source = item if isinstance(item, ImageSource) else number
      try:
        return make(source, item, self._framing)
      except DataError as error:
        return source, error

    # A large image takes as much memory as many inputs.
    ahead = 2 if tiled else 2 * batch_size
    for found in ordered_map(executor, prepare, enumerate(items), ahead):
      if not isinstance(found, tuple):
        yield from found.inputs(executor)
      elif on_error is None:
        raise found[1]
      else:
        on_error(*found)

  def _predicted(
    self, inputs: Iterable[pictures.Input], batch_size: int
  ) -> Iterator[Picture]:
    """Yields the pictures as they are complete, in order."""
    before = None
    for batch in pictures.batches(inputs, batch_size):
      pixels = np.zeros((batch_size, *batch[0].pixels.shape), np.uint8)
      for row, item in enumerate(batch):
        pixels[row] = item.pixels
      # The device works on this batch while the one before is put together.
      under_way = batch, self.model.predict(pixels)
      if before:
        yield from _put_together(*before)
      before = under_way
    if before:
      yield from _put_together(*before)


def _put_together(batch: list[pictures.Input], prediction) -> Iterator[Picture]:
  maps = np.asarray(prediction.anomaly_map)
  scores = np.asarray(prediction.image_score)
  for row, item in enumerate(batch):
    if item.picture.add(item.tile, maps[row], float(scores[row])):
      yield item.picture
