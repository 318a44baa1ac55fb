"""Image files, whether they lie in a folder or inside a TFDS data set."""

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
# Of each thread: an evaluation asks three times for the same record, for the
# image, its size and the masks.
_LAST = threading.local()


@dataclasses.dataclass(frozen=True, slots=True)
class StoredFile:
  """A file that is kept, byte for byte, in a record of a TFDS data set.

  Holds no open file, so that it may be sent to other processes; each opens
  the data set once, when the first of its files is asked for.

  Attributes:
    folder: Of the data set: DATA_DIR/NAME/VERSION.
    split: The split with the record, e.g. "train".
    index: The record's place in the split, from 0.
    path: The file's name in the folder that the data set was made from, with
      / between folders.
    mask: Which of the record's masks it is, from 0; None: its image.
  """

  folder: str
  split: str
  index: int
  path: str
  mask: int | None = None

  @property
  def name(self) -> str:
    """The last part of the file's name, as a path has it."""
    return pathlib.PurePosixPath(self.path).name

  @property
  def stem(self) -> str:
    """The name without its extension, as a path has it."""
    return pathlib.PurePosixPath(self.path).stem

  def __str__(self) -> str:
    """The file and where it is kept, for errors."""
    return f"{self.path} in {self.folder}"

  def open(self) -> BinaryIO:
    """Reads the file.

    Returns:
      Its bytes, as an open file.

    Raises:
      DataError: The data set cannot be read.
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


ImageFile = pathlib.Path | StoredFile  # as a record names it
ImageSource = str | os.PathLike | StoredFile


def open_image_file(source: ImageSource) -> Image.Image:
  """Opens an image, as `PIL.Image.open` does.

  Args:
    source: Path, or file in a data set.

  Returns:
    The image; its pixels are not yet decoded.

  Raises:
    DataError: The data set that holds the file cannot be read.
    UnidentifiedImageError: It is no image file.
    OSError: It cannot be opened.
  """
  if not isinstance(source, StoredFile):
    return Image.open(source)
  try:
    return Image.open(source.open())
  except UnidentifiedImageError:
    # Pillow names the file object, at its address in memory.
    raise UnidentifiedImageError(
      f"cannot identify image file {source.path!r}"
    ) from None


def forget_open_files() -> None:
  """Has every data set opened anew: one may have been built anew since."""
  with _OPENING:
    _open_split.cache_clear()


def import_tfds() -> types.ModuleType:
  """TensorFlow Datasets, which only stored data sets need; no TensorFlow.

  Returns:
    The module `tensorflow_datasets`.

  Raises:
    ImportError: It is not installed.
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
  """The image and the masks of a record, encoded as they were."""
  with _OPENING:
    source = _open_split(folder, split)
  last = getattr(_LAST, "read", None)
  if last is None or last[0] is not source or last[1] != index:
    last = _LAST.read = source, index, _parse(source[index])
  return last[2]


@functools.cache
def _open_split(folder: str, split: str) -> Sequence[bytes]:
  """The serialised examples of a split; threads may read them together.

  They are taken as they are: TFDS would decode the images, in its own way.
  """
  tfds = import_tfds()
  builder = tfds.builder_from_directory(folder)
  raw = tfds.decode.DeserializeMethod.RAW_BYTES
  return builder.as_data_source(split, deserialize_method=raw)


def _parse(example: bytes) -> tuple[bytes, Sequence[bytes]]:
  from tensorflow_datasets.proto import tf_example_pb2

  # Its module has no stub: protobuf makes the class at import.
  # pyrefly: ignore[missing-attribute]
  parsed = tf_example_pb2.Example.FromString(example)
  features = parsed.features.feature
  (image,) = features[IMAGE].bytes_list.value
  return image, tuple(features[MASKS].bytes_list.value)
