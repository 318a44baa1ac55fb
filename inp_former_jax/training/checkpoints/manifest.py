"""Checksums of a checkpoint's files, by which damage to them is found.

Orbax compares no checksum of its own when it reads, and most changed bits in
its files decode to other numbers. The manifest is written when every process
has written its part and before the checkpoint gets its name, so that no
checkpoint of this version can be without one.
"""

import concurrent.futures
import functools
import json
import os

from inp_former_jax.atomic import write_json
from inp_former_jax.training.checkpoints import place
from inp_former_jax.training.checkpoints.place import Place

NAME = "sha256.json"  # in the folder of a checkpoint
# Orbax writes these after the manifest; they hold times and types, no values.
_UNLISTED = (NAME, "_CHECKPOINT_METADATA", "commit_success.txt")
_THREADS = min(8, os.cpu_count() or 1)


def write_manifest(folder: Place) -> None:
  """Writes the checksums of all files of a checkpoint.

  Args:
    folder: Folder of the checkpoint, in which nothing changes any more.
  """
  content = {"files": _checksums(folder, _files(folder))}
  if place.in_bucket(folder):  # where files appear whole
    (folder / NAME).write_text(json.dumps(content, indent=2))
  else:
    write_json(folder / NAME, content)


def has_manifest(folder: Place) -> bool:
  """Whether a checkpoint has checksums; those of earlier versions have none.

  Args:
    folder: Folder of the checkpoint.
  """
  return (folder / NAME).exists()


def find_damage(folder: Place) -> str:
  """Compares the files of a checkpoint with its checksums.

  Args:
    folder: Folder of the checkpoint.

  Returns:
    What is wrong with which file; empty if all is well, or if there are no
    checksums.

  Raises:
    CheckpointError: If it is in a bucket that cannot be read.
  """
  gone = f"{folder} is no longer there; a run under way may have removed it"
  if place.in_bucket(folder):
    # Any other error is the connection's, not that of the checkpoint.
    with place.reported(folder):
      try:
        return _find_damage(folder, _signature(folder))
      except FileNotFoundError:
        return gone
  if not folder.is_dir():
    return gone
  try:
    return _find_damage(folder, _signature(folder))
  except OSError as error:
    name = error.filename or folder
    return f"{name} cannot be read ({error.strerror})"


# A command opens the same checkpoint several times; what has not been written
# to in between is not read again.
@functools.lru_cache(maxsize=64)
def _find_damage(folder: Place, signature: tuple) -> str:
  del signature  # a part of the key
  if not has_manifest(folder):
    return ""
  try:
    listed = json.loads((folder / NAME).read_text(encoding="utf-8"))["files"]
    names = list(listed)
  except (ValueError, TypeError, KeyError):
    return f"{folder / NAME} is not a list of checksums"
  found = _files(folder)
  for name in sorted({*names, *found}):
    if name not in found:
      return f"{folder / name} is missing"
    if name not in listed:
      return f"{folder / name} is not in {NAME}"
  for name, sha256 in _checksums(folder, found).items():
    if listed[name] != sha256:
      return f"{folder / name} no longer has its sha256"
  return ""


def _files(folder: Place) -> list[str]:
  """Returns the paths within a checkpoint of all files to be listed."""
  names = (p.relative_to(folder).as_posix() for p in place.files(folder))
  return sorted(name for name in names if name not in _UNLISTED)


def _checksums(folder: Place, names: list[str]) -> dict[str, str]:
  with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
    checksums = pool.map(lambda name: place.file_sha256(folder / name), names)
    return dict(zip(names, checksums, strict=True))


def _signature(folder: Place) -> tuple:
  """Returns size and time of every file of a checkpoint."""
  paths = sorted(place.files(folder))
  return tuple((str(path), *place.state_of(path)) for path in paths)
