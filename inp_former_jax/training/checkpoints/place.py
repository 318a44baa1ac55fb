"""Where the checkpoints of a run are: in its workdir, or in a bucket.

Only checkpoints can be in a bucket. Config, log, lock and results are ordinary
files of the workdir.
"""

import contextlib
import hashlib
import os
import pathlib
import uuid
from collections.abc import Generator, Iterator

import jax
from etils import epath

from inp_former_jax import config_files, hashing
from inp_former_jax.training.checkpoints.literal_path import LiteralPath
from inp_former_jax.training.identity import CheckpointError

SCHEME = "gs://"
Place = pathlib.Path | epath.Path  # a folder, or the address of one
_PIECE = 1 << 20  # bytes
_SPECIAL = "*?[#"  # characters with a meaning to orbax or gcsfs
# What is in the folder of a step.
_ITEMS = {"trainable", "opt_state", "iterator", "identity", "sha256.json"}
_ITEMS |= {"_CHECKPOINT_METADATA", "commit_success.txt"}


def of_run(folder: str, workdir: pathlib.Path) -> Place:
  """Returns the place at which a run is to have its checkpoints.

  Args:
    folder: Address of a folder in a bucket; if empty, they are in the workdir.
    workdir: Folder of the run.

  Raises:
    CheckpointError: If the address cannot be used, or packages are missing.
  """
  if not folder:
    return workdir / "checkpoints"
  if any(character in folder for character in _SPECIAL):
    raise CheckpointError(
      f"`folder` is {folder!r}; in an address the characters "
      f"{' '.join(_SPECIAL)} have meanings of their own. Choose another."
    )
  try:
    import fsspec.config
    import gcsfs  # noqa: F401
  except ImportError as error:
    raise CheckpointError(
      f"`folder` is {folder}, but gcsfs is not installed: pip install "
      "'inp-former-jax[gcs]', or mount the bucket as a folder and leave the "
      "field empty."
    ) from error
  # Its cache of listings would miss what others write: TensorStore in this
  # process, and other processes.
  fsspec.config.conf.setdefault("gcs", {})["use_listings_cache"] = False
  return epath.Path(folder)


def of_workdir(workdir: pathlib.Path) -> Place:
  """Returns the place at which the run of a workdir has its checkpoints.

  Args:
    workdir: Folder of a run, or of a converted checkpoint.

  Raises:
    CheckpointError: If they are in a bucket, and packages are missing.
    ConfigError: If there are none in the workdir, and its config, which would
      name their place, cannot be read.
  """
  record, folder = workdir / config_files.RECORDED, ""
  if not has_steps(workdir / "checkpoints") and record.is_file():
    fields = config_files.recorded_fields(record).get("checkpoint", {})
    folder = fields.get("folder", "")
  return of_run(folder, workdir)


def in_bucket(place: str | Place) -> bool:
  """Whether a place is in a bucket.

  Args:
    place: A folder or file, or the address of one.
  """
  return os.fspath(place).startswith(SCHEME)


def absolute(place: str | Place) -> Place:
  """Returns the absolute path of a folder; an address is left as it is.

  Args:
    place: The folder.
  """
  if in_bucket(place):
    return epath.Path(place)
  return pathlib.Path(place).absolute()


def for_orbax(place: Place) -> epath.Path:
  """Returns a place as orbax takes it.

  Args:
    place: The folder of all checkpoints of a run.
  """
  return epath.Path(place) if in_bucket(place) else LiteralPath(place)


def has_steps(place: Place) -> bool:
  """Whether a folder holds checkpoints; in a bucket, also unfinished ones.

  Args:
    place: The folder, which need not exist.

  Raises:
    CheckpointError: If it is in a bucket that cannot be read.
  """
  if not in_bucket(place) and not place.is_dir():
    return False
  with reported(place):
    return any(path.name.isdecimal() for path in _entries(place))


@contextlib.contextmanager
def reported(place: Place) -> Generator[None]:
  """Turns the errors of a bucket, which are of many kinds, into one.

  Args:
    place: A folder; the errors of one that is in no bucket are left alone.

  Raises:
    CheckpointError: If the bucket cannot be reached, read or written.
  """
  try:
    yield
  except (CheckpointError, jax.errors.JaxRuntimeError):
    raise  # the latter is of an exchange with other processes
  except Exception as error:  # of gcsfs, aiohttp, google-auth and google-cloud
    if not in_bucket(place):
      raise
    reason = str(error).split("\n")[0][:300] or type(error).__name__
    raise CheckpointError(
      f"{place} cannot be used ({type(error).__name__}: {reason}). Check the "
      "name of the bucket and the credentials (gcloud auth application-default "
      "login), which must allow reading and writing objects, and "
      "storage.buckets.get."
    ) from error


def prepare(place: Place) -> None:
  """Makes sure that a bucket can be written, and a folder of it is the run's.

  Orbax removes every sub-folder that is no finished checkpoint, because in a
  bucket a save in progress has the name of its step.

  Args:
    place: The folder of all checkpoints of a run. For one that is in no bucket,
      nothing is done; see `workdirs.prepare_workdir`.

  Raises:
    CheckpointError: If it cannot be written, or has other sub-folders.
  """
  if not in_bucket(place):
    return
  probe = epath.Path(place) / f"probe-{uuid.uuid4().hex}.txt"
  with reported(place):
    probe.write_text("Written and removed at the start of a run.\n")
    probe.unlink()
    foreign = [path for path in _entries(place) if not _is_step(path)]
  if foreign:
    raise CheckpointError(
      f"`folder` {place} holds {foreign[0].name}, which is no checkpoint of "
      "this project and would be removed. Name a folder with nothing else in "
      "it."
    )


def _is_step(path: Place) -> bool:
  """Whether a folder is a step's; files are never removed."""
  if not _is_folder(path):
    return True
  return path.name.isdecimal() and all(
    item.name in _ITEMS or (item.name == path.name and not _is_folder(item))
    for item in _entries(path)
  )


def _entries(place: Place) -> list[Place]:
  """Returns what is in a folder; one of a bucket without files is not there."""
  try:
    return list(place.iterdir())
  except FileNotFoundError:
    return []


def _is_folder(path: Place) -> bool:
  """Whether a path is a folder; `is_dir` would hide the errors of a bucket."""
  if not in_bucket(path):
    return path.is_dir()
  try:
    return epath.Path(path).stat().is_directory
  except FileNotFoundError:  # the empty object that marks a folder
    return False


def files(place: Place) -> Iterator[Place]:
  """Yields all files of a folder and its sub-folders.

  Args:
    place: The folder.
  """
  for path in place.iterdir():
    if _is_folder(path):
      yield from files(path)
    elif not (in_bucket(place) and path.name == place.name):
      yield path  # the other is the empty object that marks a folder


def file_sha256(path: Place) -> str:
  """Computes the sha256 checksum of a file, in hex.

  Args:
    path: The file.
  """
  if not in_bucket(path):
    return hashing.file_sha256(pathlib.Path(path))
  digest = hashlib.sha256()
  with path.open("rb") as file:
    while piece := file.read(_PIECE):
      digest.update(piece)
  return digest.hexdigest()


def state_of(path: Place) -> tuple[int, int]:
  """Returns size and time of a file, which change when it is written to.

  Args:
    path: The file.
  """
  if in_bucket(path):
    stat = epath.Path(path).stat()
    return stat.length, stat.mtime
  local = os.stat(path)
  return local.st_size, local.st_mtime_ns


def move(source: Place, target: Place) -> None:
  """Moves a folder; one in a bucket by copying its files, as buckets do.

  Args:
    source: The folder.
    target: Its new place, of the same kind, where nothing is yet.
  """
  if not in_bucket(source):
    pathlib.Path(target).parent.mkdir(exist_ok=True)
    os.rename(source, target)
    return
  for path in files(source):
    copy = target / path.relative_to(source)
    copy.write_bytes(path.read_bytes())
  epath.Path(source).rmtree()
