"""Image files, whether they lie in a folder or within a TFDS data set."""

import dataclasses
import functools
import io
import os
import pathlib
import threading
import types
from collections.abc import Sequence
from typing import BinaryIO

from PIL import Image, UnidentifiedImageError

from inp_former_jax.data.errors import DataError

IMAGE, MASKS = "image", "masks"  # features of the stored data set
INSTALL = 'pip install "inp-former-jax[tfds]"'

_OPENING = threading.Lock()
# The last record that each thread has read: an evaluation asks for the same
# record three times, for the image, its size and the masks.
_LAST = threading.local()


@dataclasses.dataclass(frozen=True, slots=True)
class StoredFile:
  """A file that a record of a TFDS data set holds byte for byte.

  It keeps no open file, so it can be sent to other processes. Each process
  opens the data set once, when it first reads one of the files.

  Attributes:
    folder: The folder of the data set, DATA_DIR/NAME/VERSION.
    split: The split that holds the record, e.g. "train".
    index: The position of the record in the split, from 0.
    path: The name of the file in the folder that the data set was built from,
      with / between folders.
    mask: Which of the record's masks the file is, from 0; None if it is the
      image.
  """

  folder: str
  split: str
  index: int
  path: str
  mask: int | None = None

  @property
  def name(self) -> str:
    """Last part of the file's path, as in `pathlib`."""
    return pathlib.PurePosixPath(self.path).name

  @property
  def stem(self) -> str:
    """Name of the file without its extension, as in `pathlib`."""
    return pathlib.PurePosixPath(self.path).stem

  def __str__(self) -> str:
    """Returns the file's path and the folder that holds it, for errors."""
    return f"{self.path} in {self.folder}"

  def open(self) -> BinaryIO:
    """Reads the file.

    Returns:
      The bytes of the file, as an open file.

    Raises:
      DataError: If the data set cannot be read.
    """
    try:
      image, masks = _read_record(self.folder, self.split, self.index)
    # The readers of array_record raise ValueError, RuntimeError and others.
    except Exception as error:
      reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
      raise DataError(
        f"The data set in {self.folder} cannot be read (record {self.index} "
        f"of {self.split}): {reason}. Copy the folder again, or remove it and "
        "build the data set again."
      ) from error
    return io.BytesIO(image if self.mask is None else masks[self.mask])


ImageFile = pathlib.Path | StoredFile  # the types of the files of a record
ImageSource = str | os.PathLike | StoredFile


def open_image_file(source: ImageSource) -> Image.Image:
  """Opens an image, as `PIL.Image.open` does.

  Args:
    source: The path of the image, or the file within a TFDS data set.

  Returns:
    The image, whose pixels are not decoded yet.

  Raises:
    DataError: If the data set that holds the file cannot be read.
    UnidentifiedImageError: If the file is not an image.
    OSError: If the file cannot be opened.
  """
  if not isinstance(source, StoredFile):
    return Image.open(source)
  try:
    return Image.open(source.open())
  except UnidentifiedImageError:
    # Pillow's own message names the file object by its address in memory.
    raise UnidentifiedImageError(
      f"cannot identify image file {source.path!r}"
    ) from None


def forget_open_files() -> None:
  """Makes the next read open each data set again, as one may be rebuilt."""
  with _OPENING:
    _open_split.cache_clear()


def import_tfds() -> types.ModuleType:
  """Imports TensorFlow Datasets, which only TFDS data sets need.

  TensorFlow itself is not needed.

  Returns:
    The module `tensorflow_datasets`.

  Raises:
    ImportError: If the module is not installed.
  """
  try:
    import array_record.python.array_record_data_source  # noqa: F401
    import tensorflow_datasets
  except ImportError as error:
    raise ImportError(
      f"TFDS data sets need the extra tfds ({error}). Install it: {INSTALL}"
    ) from error
  return tensorflow_datasets


def _read_record(
  folder: str, split: str, index: int
) -> tuple[bytes, Sequence[bytes]]:
  """Returns the image and the masks of a record as encoded files."""
  with _OPENING:
    source = _open_split(folder, split)
  last = getattr(_LAST, "read", None)
  if last is None or last[0] is not source or last[1] != index:
    last = _LAST.read = source, index, _parse(source[index])
  return last[2]


@functools.cache
def _open_split(folder: str, split: str) -> Sequence[bytes]:
  """Returns the serialised examples of a split; safe to read in threads.

  They are not deserialised here because TFDS would then decode the images in
  its own way.
  """
  tfds = import_tfds()
  builder = tfds.builder_from_directory(folder)
  raw = tfds.decode.DeserializeMethod.RAW_BYTES
  return builder.as_data_source(split, deserialize_method=raw)


def _parse(example: bytes) -> tuple[bytes, Sequence[bytes]]:
  from tensorflow_datasets.proto import tf_example_pb2

  # The module has no stub, as protobuf creates the class at import.
  # pyrefly: ignore[missing-attribute]
  parsed = tf_example_pb2.Example.FromString(example)
  features = parsed.features.feature
  (image,) = features[IMAGE].bytes_list.value
  return image, tuple(features[MASKS].bytes_list.value)
