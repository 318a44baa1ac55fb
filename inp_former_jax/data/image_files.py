"""Image files, whether they lie in a folder or within a TFDS data set."""

import dataclasses
import functools
import io
import os
import pathlib
import re
import stat
import threading
import types
import warnings
from collections.abc import Sequence
from typing import BinaryIO, cast

from PIL import Image, UnidentifiedImageError

from inp_former_jax.data.errors import DataError
from inp_former_jax.data.pixel_limits import max_pixels, too_large
from inp_former_jax.terminal import printable

# The formats that are opened, whatever a file is called; JPEG includes MPO.
# Pillow knows others, of which some start other programs (EPS: Ghostscript).
FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "GIF", "WEBP")
# Endings of the names of image files, in lower case.
EXTENSIONS = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
IMAGE, MASKS = "image", "masks"  # features of the stored data set
INSTALL = 'pip install "inp-former-jax[tfds]"'

# Pillow's warning for images from half the limit on, as an entry of
# `warnings.filters`. They are read, so there is nothing to warn of.
_NO_SIZE_WARNING = ("ignore", None, Image.DecompressionBombWarning, None, 0)
_KINDS = {
  stat.S_IFDIR: "a folder",
  stat.S_IFIFO: "a named pipe (FIFO)",
  stat.S_IFSOCK: "a socket",
  stat.S_IFCHR: "a device",
  stat.S_IFBLK: "a device",
}
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
      content = image if self.mask is None else masks[self.mask]
    # The readers of array_record raise ValueError, RuntimeError and others.
    except Exception as error:
      reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
      raise DataError(
        f"The data set in {self.folder} cannot be read (record {self.index} "
        f"of {self.split}): {reason}. Copy the folder again, or remove it and "
        "build the data set again."
      ) from error
    return io.BytesIO(content)


ImageFile = pathlib.Path | StoredFile  # the types of the files of a record
ImageSource = str | os.PathLike | StoredFile


def open_image_file(source: ImageSource) -> Image.Image:
  """Opens an image, as `PIL.Image.open` does, if it is safe to decode.

  Every image of training, evaluation and prediction is opened here: only of
  FORMATS, and with at most so many pixels as `pixel_limits` says. Pillow's own
  limit, twice the value of `PIL.Image.MAX_IMAGE_PIXELS` at the time, holds too;
  below it, Pillow's warnings about the size are silenced.

  Args:
    source: The path of the image, or the file within a TFDS data set.

  Returns:
    The image, whose pixels are not decoded yet.

  Raises:
    DataError: If the path is not that of a regular file, if the image has too
      many pixels or several frames, or if the data set that holds the file
      cannot be read.
    UnidentifiedImageError: If the file is not an image of one of FORMATS.
    OSError: If the file cannot be opened.
  """
  require_regular_file(source)
  if _NO_SIZE_WARNING not in warnings.filters:
    # `warnings.catch_warnings` would change the filters of all threads.
    warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
  limit = max_pixels()
  try:
    image = _open(source)
  except Image.DecompressionBombError as error:
    # "Image size (N pixels) exceeds limit of M pixels, could be ..."
    pixels, allowed, *_ = re.findall(r"\d+", str(error))
    raise too_large(printable(source), pixels, allowed) from error
  try:
    if (pixels := image.width * image.height) > limit:
      raise too_large(printable(source), str(pixels), str(limit))
    _require_single_picture(image, source)
  except BaseException:
    image.close()
    raise
  return image


def _open(source: ImageSource) -> Image.Image:
  if not isinstance(source, StoredFile):
    return Image.open(source, formats=FORMATS)
  try:
    return Image.open(source.open(), formats=FORMATS)
  except UnidentifiedImageError:
    # Pillow's own message names the file object by its address in memory.
    raise UnidentifiedImageError(
      f"cannot identify image file {source.path!r}"
    ) from None


def require_regular_file(
  source: ImageSource, expected: str = "an image file"
) -> None:
  """Makes sure that a path leads to a file that can be read.

  Opening a named pipe, for example, would wait forever for a writer.

  Args:
    source: The path of the file, or the file within a TFDS data set.
    expected: What the file should be, for the error.

  Raises:
    DataError: If there is something else, such as a folder or a named pipe.
    OSError: If there is nothing.
  """
  if isinstance(source, StoredFile):
    return
  kind = stat.S_IFMT(os.stat(source).st_mode)
  if kind != stat.S_IFREG:
    raise DataError(
      f"{printable(source)} is {_KINDS.get(kind, 'not a regular file')}; "
      f"expected {expected}. Replace or remove it."
    )


def _require_single_picture(image: Image.Image, source: ImageSource) -> None:
  frames = getattr(image, "n_frames", 1)
  # The first picture of an MPO is the photo; the others are its previews or
  # what a second lens has seen.
  if frames > 1 and image.format != "MPO":
    raise DataError(
      f"{printable(source)} holds {frames} frames (of {image.format}); "
      "expected a single picture, because the others would be left out. Save "
      "each frame as an image file of its own."
    )


def find_images(folder: str | os.PathLike) -> list[pathlib.Path]:
  """Finds everything in a folder that has the name of an image file.

  Hidden files and folders are left out. Links to folders are followed, and
  every folder is searched once, so that links in a circle do no harm. What has
  such a name but is no file (a folder, a FIFO) is included, and so is every
  link that leads nowhere, because a folder of images may be missing there:
  reading it reports what it is, rather than leaving it out unnoticed.

  Args:
    folder: The folder, which is searched to any depth.

  Returns:
    The paths, sorted, each beginning with `folder`.

  Raises:
    DataError: If `folder`, or a folder inside it, cannot be listed.
  """
  found: list[pathlib.Path] = []
  seen: set[tuple[int, int]] = set()
  for place, folders, files in os.walk(
    folder, followlinks=True, onerror=_not_listed
  ):
    status = os.stat(place)
    if (status.st_dev, status.st_ino) in seen:
      folders.clear()
      continue
    seen.add((status.st_dev, status.st_ino))
    names = [
      name
      for name in folders + files
      if _is_visible_image(name)
      or (name[0] != "." and is_dangling(os.path.join(place, name)))
    ]
    found += [pathlib.Path(place, name) for name in names]
    inner = [n for n in folders if n[0] != "." and n not in set(names)]
    folders[:] = sorted(inner)
  return sorted(found)


def _is_visible_image(name: str) -> bool:
  return name[0] != "." and os.path.splitext(name)[1].lower() in EXTENSIONS


def is_dangling(path: str | os.PathLike) -> bool:
  """Returns whether a path is a link to something that is not there.

  Such are the files of git-annex and DVC that were not fetched, and links to
  disks that are not mounted.

  Args:
    path: The path, which may be anything.
  """
  return os.path.islink(path) and not os.path.exists(path)


def _not_listed(error: OSError) -> None:
  raise DataError(
    f"{printable(error.filename)} cannot be searched for images: "
    f"{error.strerror}. Name a folder that can be read."
  ) from error


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

  The array_record files are opened directly. TFDS would decode the images in
  its own way, and import whatever class features.json names.
  """
  from array_record.python import array_record_data_source

  if "://" in folder:
    from etils import epath

    names = [path.name for path in epath.Path(folder).iterdir()]
  else:
    names = os.listdir(folder)
  shards = sorted(name for name in names if f"-{split}.array_record-" in name)
  if not shards:
    raise ValueError(f"it has no files of the split {split}")
  paths = [os.path.join(folder, name) for name in shards]
  source = array_record_data_source.ArrayRecordDataSource(paths)
  return cast(Sequence[bytes], source)


def _parse(example: bytes) -> tuple[bytes, Sequence[bytes]]:
  from tensorflow_datasets.proto import tf_example_pb2

  # The module has no stub, as protobuf creates the class at import.
  # pyrefly: ignore[missing-attribute]
  parsed = tf_example_pb2.Example.FromString(example)
  features = parsed.features.feature
  if len(features[IMAGE].bytes_list.value) != 1:
    raise ValueError(f"it holds no feature {IMAGE!r}, which is the image")
  (image,) = features[IMAGE].bytes_list.value
  return image, tuple(features[MASKS].bytes_list.value)
