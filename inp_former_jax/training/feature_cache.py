"""The encoder groups of all training images, computed once.

The encoder is frozen and preprocessing is deterministic, so that the groups of
an image are the same in every epoch. They are kept in a file and, if there is
room, on the devices or in the memory of the host while a run trains.
"""

import contextlib
import pathlib
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any

import filelock
import grain
import jax
import numpy as np
from jax.sharding import Mesh

from inp_former_jax import sharding
from inp_former_jax.data.augment import AUGMENTATIONS
from inp_former_jax.data.cache_key import cache_key, cache_path
from inp_former_jax.data.records import Record
from inp_former_jax.data.row_file import RowFile
from inp_former_jax.data.transforms import Preprocessing
from inp_former_jax.models import placement
from inp_former_jax.processes import exchange
from inp_former_jax.training import feature_places as places
from inp_former_jax.training.feature_places import Features, Rows
from inp_former_jax.training.model_state import DTYPES, ModelState
from inp_former_jax.training.progress import announce
from inp_former_jax.training.train_step import make_encode

_SECONDS = 10  # between two lines of progress
_LOCK_SECONDS = 5  # of waiting for another run, until processes meet again
# Function from numbers of items to batches of their images, of this process,
# with `index`; see `ordered_batches`.
Reader = Callable[[Sequence[int]], grain.DatasetIterator]


def prepare(
  model: ModelState,
  mesh: Mesh,
  records: Sequence[Record],
  preprocessing: Preprocessing,
  read: Reader,
  *,
  augmented: bool,
  batch_size: int,
  seed: int,
  folder: pathlib.Path,
  name: str,
) -> Features:
  """Computes the groups that are not in the cache, and gives access to all.

  All processes of the mesh must call this function.

  Args:
    model: The model, of which the encoder is used.
    mesh: The devices that train.
    records: The images to train on.
    preprocessing: The sizes to resize and crop to.
    read: The function that reads images.
    augmented: Whether each image comes with all its augmentations.
    batch_size: B, the number of images that the encoder takes at once.
    seed: The seed of the model, which decides a random encoder.
    folder: The folder of the caches.
    name: The name of the data set.

  Returns:
    The groups, on the devices if they fit there, else in the memory of the
    host, else in the file.

  Raises:
    CacheError: If they fit nowhere, or the file cannot be written.
    DataError: If an image cannot be read.
  """
  count = len(records) * (len(AUGMENTATIONS) if augmented else 1)
  shape, dtype = _row_type(model, preprocessing)
  key = feature_key(model, records, preprocessing, augmented, seed)
  path = cache_path(folder, name, "features", key)
  file = RowFile(path, key, count=count, shape=shape, dtype=dtype)
  where, stored = places.choose(file, mesh)
  own = places.own_rows(count, mesh, where)
  with _filling(path):
    rows: Rows = file if stored else places.rows_in_memory(file, own)
    missing = _missing_anywhere(rows, own, count)
    if len(missing):
      computed = _compute(model, mesh, read, missing, batch_size, dtype)
      _store(computed, rows, own, len(missing))
  return places.place(rows, file, mesh, where)


def feature_key(
  model: ModelState,
  records: Sequence[Record],
  preprocessing: Preprocessing,
  augmented: bool,
  seed: int,
) -> dict[str, Any]:
  """Describes everything that decides the groups.

  Args:
    model: The model, of which the encoder is used.
    records: The images to train on.
    preprocessing: The sizes to resize and crop to.
    augmented: Whether each image comes with all its augmentations.
    seed: The seed of the model, which decides a random encoder.

  Returns:
    The key, fit for JSON.
  """
  is_random = model.encoder_sha256 == "random"
  return cache_key(
    records,
    preprocessing,
    kind="features",
    encoder=model.settings.encoder,
    encoder_sha256=model.encoder_sha256,
    encoder_seed=seed if is_random else None,
    dtype=model.settings.dtype,
    augmentations=[a.name for a in AUGMENTATIONS] if augmented else [],
  )


def _row_type(
  model: ModelState, preprocessing: Preprocessing
) -> tuple[tuple[int, ...], np.dtype]:
  """Returns the shape (2, N, C) and the dtype in which groups are kept."""
  image = jax.ShapeDtypeStruct((1, *preprocessing.crop, 3), np.uint8)
  encode = make_encode(model.graphdef)
  groups = jax.eval_shape(encode, model.abstract_trainable, model.frozen, image)
  return groups.shape[1:], np.dtype(DTYPES[model.settings.dtype])


@contextlib.contextmanager
def _filling(path: pathlib.Path) -> Generator[None]:
  """Lets one run at a time fill a file; its first process stands for it."""
  lock = filelock.FileLock(f"{path}.filling.lock")
  wait = 0
  try:
    while not _acquire(lock, wait):
      if not wait:
        announce(f"Another run is computing {path}; waiting for it.")
      wait = _LOCK_SECONDS
    yield
  finally:
    lock.release()


def _acquire(lock: filelock.BaseFileLock, wait: float) -> bool:
  """Tries to get a lock for the first process; all return whether it has it.

  All go on together, so that none looks for missing rows while another run
  still writes them. They meet after every attempt, because an exchange between
  processes fails if one of them is late by minutes.
  """
  if jax.process_index() == 0:
    with contextlib.suppress(filelock.Timeout):
      lock.acquire(timeout=wait)
  return bool(exchange.gather_processes(np.array([lock.is_locked])).any())


def _missing_anywhere(
  rows: Rows, own: Sequence[int], count: int
) -> Sequence[int]:
  """Returns the rows that some process should have and does not."""
  missing = np.zeros(count, np.uint8)
  for index in own:
    missing[index] = rows.read(index) is None  # reads it to check it
  return np.flatnonzero(exchange.gather_processes(missing).any(axis=0)).tolist()


def _compute(
  model: ModelState,
  mesh: Mesh,
  read: Reader,
  numbers: Sequence[int],
  batch_size: int,
  dtype: np.dtype,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
  """Yields batches of numbers, (B,), and their groups, (B, 2, N, C)."""
  encode = make_encode(model.graphdef)

  def encode_features(frozen, images, augmentation):
    groups = encode(model.abstract_trainable, frozen, images, augmentation)
    return groups.astype(dtype)

  batched = sharding.batch_sharding(mesh)
  # With several processes, each needs rows that others have computed.
  several = jax.process_count() > 1
  compiled = jax.jit(
    placement.on_mesh(mesh)(encode_features),
    out_shardings=sharding.replicated(mesh) if several else batched,
  )
  # The encoder always gets whole batches, as in the training step: with other
  # shapes it may round differently.
  fill = -len(numbers) % batch_size
  before = None
  with contextlib.closing(read([*numbers, *[numbers[-1]] * fill])) as batches:
    for batch in batches:
      arrays = {k: sharding.to_global(v, batched) for k, v in batch.items()}
      groups = compiled(
        model.frozen, arrays["image"], arrays.get("augmentation")
      )
      if before:
        yield sharding.to_host(before[0]), sharding.to_host(before[1])
      before = arrays["index"], groups
  if before:
    yield sharding.to_host(before[0]), sharding.to_host(before[1])


def _store(
  computed: Iterator[tuple[np.ndarray, np.ndarray]],
  rows: Rows,
  own: Sequence[int],
  count: int,
) -> None:
  wanted, done = set(own), 0
  began = printed = time.perf_counter()
  for numbers, groups in computed:
    for number, row in zip(numbers.tolist(), groups, strict=True):
      if number in wanted:
        rows.write(number, row)
    done = min(done + len(numbers), count)
    now = time.perf_counter()
    if now - printed > _SECONDS or done == count:
      printed = now
      rate = done / (now - began)
      announce(f"Features of {done:,} of {count:,} images, {rate:.1f}/s")
