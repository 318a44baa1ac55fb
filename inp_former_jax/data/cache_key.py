"""Says where a cache lies, and of what it is: a change of that is another."""

import hashlib
import json
import os
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import PIL

from inp_former_jax.data.image_files import StoredFile
from inp_former_jax.data.records import Record
from inp_former_jax.data.row_file import CacheError
from inp_former_jax.data.transforms import Preprocessing
from inp_former_jax.user_cache import user_cache

_FORMAT = 1  # to be raised whenever the content of the files changes


def cache_folder(cache_dir: str | os.PathLike) -> pathlib.Path:
  """Returns the folder of the caches.

  Args:
    cache_dir: The folder that the user names; if it is empty, the caches lie in
      the user's cache folder, where runs on the same images share them.

  Raises:
    CacheError: If the folder lies in a home folder, and there is none.
  """
  try:
    if cache_dir:
      return pathlib.Path(cache_dir).expanduser().absolute()
    return user_cache() / "training"
  except RuntimeError as error:
    raise CacheError(
      f"`cache_dir` is {str(cache_dir)!r}, which stands for a folder in a home "
      "folder, and there is none. Set it to the path of a folder."
    ) from error


def cache_key(
  records: Sequence[Record], preprocessing: Preprocessing, **others: Any
) -> dict[str, Any]:
  """Describes everything that decides the content of a cache.

  Args:
    records: The images.
    preprocessing: The sizes to which they are resized and cropped.
    **others: Whatever else decides the content, fit for JSON.

  Returns:
    The key, fit for JSON, with the checksum of the names, sizes and times of
    the files in place of their list.
  """
  files = json.dumps(_files(records)).encode()
  return {
    "format": _FORMAT,
    "images": len(records),
    "files_sha256": hashlib.sha256(files).hexdigest(),
    "resize": list(preprocessing.resize),
    "crop": list(preprocessing.crop),
    "pillow": PIL.__version__,
    **others,
  }


def cache_path(
  folder: pathlib.Path, name: str, kind: str, key: Mapping[str, Any]
) -> pathlib.Path:
  """Returns the path of a cache's file, which its key decides.

  Args:
    folder: The folder of the caches.
    name: The name of the data set, by which people recognise the file.
    kind: What the cache holds, such as "images".
    key: The key, from `cache_key`.
  """
  text = json.dumps(key, sort_keys=True).encode()
  digest = hashlib.sha256(text).hexdigest()[:20]
  plain = re.sub(r"[^A-Za-z0-9_.-]+", "_", name)[:40]
  return folder / f"{plain}-{kind}-{digest}.rows"


def _files(records: Sequence[Record]) -> list[list[Any]]:
  """Lists the files with their sizes and times, in the order of the records."""
  found: list[list[Any]] = []
  folders: dict[str, None] = {}
  for record in records:
    image = record.image
    if isinstance(image, StoredFile):
      folders[image.folder] = None
      found.append([image.folder, image.split, image.index, image.path])
    else:
      found.append(_local_file(image))
  for folder in folders:
    found += _stored_files(folder)
  return found


def _local_file(path: str | os.PathLike) -> list[Any]:
  status = os.stat(path)
  return [os.path.abspath(path), status.st_size, status.st_mtime_ns]


def _stored_files(folder: str) -> list[list[Any]]:
  """Lists the files of a TFDS data set, which may lie in a bucket."""
  if os.path.isdir(folder):
    names = sorted(os.listdir(folder))
    return [_local_file(os.path.join(folder, name)) for name in names]
  from etils import epath

  files = sorted(epath.Path(folder).iterdir(), key=str)
  stats = [(str(file), file.stat()) for file in files]
  return [[name, status.length, status.mtime] for name, status in stats]
