"""Finds the file with an encoder's weights: bundled, cached or downloaded."""

import dataclasses
import importlib.util
import os
import pathlib
import re
import shutil

from inp_former_jax.atomic import replacing
from inp_former_jax.weights import checksums, download, files
from inp_former_jax.weights.encoders import (
  ENCODERS,
  EncoderSpec,
  get_encoder,
)

CACHE_VARIABLE = "INP_FORMER_CACHE"
HUGGING_FACE = "huggingface"
ORIGINAL = "original"
SOURCES = (HUGGING_FACE, ORIGINAL)

_HUB_FILE = "model.safetensors"
_SUFFIXES = (".npz", ".safetensors", ".pth")  # in order of preference
_COMMAND = "python -m inp_former_jax.models.pretrained"


@dataclasses.dataclass(frozen=True)
class EncoderFile:
  """A verified file with an encoder's weights.

  Attributes:
    path: Path of the file.
    sha256: Checksum of the file, in hex.
  """

  path: pathlib.Path
  sha256: str


def cache_folder() -> pathlib.Path:
  """Returns the folder for imported files and original PyTorch files."""
  folder = os.environ.get(CACHE_VARIABLE) or "~/.cache/inp_former_jax/encoders"
  return pathlib.Path(folder).expanduser()


def published(name: str) -> EncoderSpec:
  """Looks up an encoder whose weights can be downloaded.

  Args:
    name: The encoder's name, such as `dinov2reg_vit_base_14`.

  Returns:
    The encoder's row of ENCODERS.

  Raises:
    FileNotFoundError: If nobody has published the encoder's weights.
    ValueError: If there is no encoder of that name.
  """
  spec = get_encoder(name)
  if spec.bundled_file:
    raise FileNotFoundError(
      f"The encoder {name} comes with this package and has no other source: "
      'leave `encoder_weights` empty ("").'
    )
  if not spec.is_published:
    names = [s.name for s in ENCODERS.values() if s.is_published]
    raise FileNotFoundError(
      f"The encoder {name} has no published weights; the encoders with "
      f"published weights are {', '.join(names)}. Pass a file, "
      "`encoder_weights`=FILE, or, for tests only, train on a random encoder, "
      "`encoder_weights`=random."
    )
  return spec


def bundled(name: str) -> EncoderFile | None:
  """Finds an encoder's file within this package.

  Args:
    name: The encoder's name, such as `demo_vit_tiny_14`.

  Returns:
    The file, or None if the encoder is not bundled with the package.

  Raises:
    FileNotFoundError: If the package was installed without the file.
    ChangedFileError: If the file is not the one that was shipped.
  """
  spec = get_encoder(name)
  if not spec.bundled_file:
    return None
  shipped = spec.bundled_sha256
  path = pathlib.Path(__file__).parents[1] / "assets" / spec.bundled_file
  if not path.is_file():
    raise FileNotFoundError(
      f"{path}, which holds the encoder {name}, is missing: the package is "
      "damaged. Install inp-former-jax again."
    )
  sha256 = files.file_sha256(path)
  if sha256 != shipped:
    raise checksums.ChangedFileError(
      f"{path} has changed: its sha256 is {sha256}, but the file shipped had "
      f"{shipped}. Install inp-former-jax again."
    )
  return EncoderFile(path, sha256)


def find_cached(name: str) -> EncoderFile | None:
  """Finds an encoder's file on this machine.

  Looks in this package, then in our cache, then in the Hugging Face Hub's.

  Args:
    name: The encoder's name, such as `dinov2reg_vit_base_14`.

  Returns:
    The file, or None if it is not on this machine.

  Raises:
    FileNotFoundError: If the file should be bundled with this package and is
      missing.
    ChangedFileError: If the file has changed since it was stored.
  """
  spec = get_encoder(name)
  if spec.bundled_file:
    return bundled(name)
  for path in _cached_paths(name):
    return EncoderFile(path, checksums.verify_file(path).sha256)
  if not spec.hub_id:
    return None
  import huggingface_hub

  path = huggingface_hub.try_to_load_from_cache(spec.hub_id, _HUB_FILE)
  return _verify_hub_file(name, path) if isinstance(path, str) else None


def _cached_paths(name: str) -> list[pathlib.Path]:
  paths = [cache_folder() / (name + suffix) for suffix in _SUFFIXES]
  return [path for path in paths if path.is_file()]


def find_or_fetch(name: str) -> EncoderFile:
  """Finds an encoder's file on this machine, or downloads it from the Hub.

  Args:
    name: The encoder's name, such as `dinov2reg_vit_base_14`.

  Returns:
    The file.

  Raises:
    FileNotFoundError: If nobody has published weights of this encoder.
    DownloadError: If the file is not on this machine and cannot be
      downloaded.
    ChangedFileError: If the file has changed since it was stored.
  """
  return find_cached(name) or fetch(name, HUGGING_FACE)


def fetch(name: str, source: str) -> EncoderFile:
  """Gets an encoder's file from one source, downloading it if necessary.

  Args:
    name: The encoder's name, such as `dinov2reg_vit_base_14`.
    source: The source, one of SOURCES.

  Returns:
    The file.

  Raises:
    FileNotFoundError: If the source has no weights of this encoder.
    DownloadError: If the file is not on this machine and cannot be
      downloaded.
    ChangedFileError: If the file has changed since it was stored.
    ImportError: If it is the original file and PyTorch, which reads it, is
      not installed.
  """
  fetch_from = {HUGGING_FACE: _fetch_hub, ORIGINAL: _fetch_original}[source]
  addresses = describe_sources(name)
  if source not in addresses:
    raise FileNotFoundError(
      f"The encoder {name} has no weights at the source {source!r}; it has "
      f"them at {', '.join(addresses)}."
    )
  url = addresses[source]
  try:
    return fetch_from(name)
  except (checksums.ChangedFileError, ImportError):
    raise
  # The library behind the Hub's requests has its own exceptions, and varies.
  except Exception as error:
    raise download.DownloadError(_remedy(name, url, error)) from error


def _remedy(name: str, url: str, error: Exception) -> str:
  found = str(error)
  if not isinstance(error, download.DownloadError):
    # The Hub's own error says "check your connection" even when offline mode
    # is switched on; its cause gives the real reason.
    cause = error.__cause__ or error
    reason = str(cause).strip().split("\n")[0] or type(cause).__name__
    found = f"{url} cannot be downloaded: {reason}"
  listing = "\n".join(
    f"  {address}{' (needs the extra `convert`)' if source == ORIGINAL else ''}"
    for source, address in describe_sources(name).items()
  )
  return (
    f"The weights of the encoder {name} are not on this machine. {found}\n"
    "Try again with a connection, or fetch one of these by hand\n"
    f"{listing}\n"
    f"and import it: {_COMMAND} import {name} FILE\n"
    "or pass its path: `encoder_weights`=FILE. For tests only, a random "
    "encoder will do: `encoder_weights`=random."
  )


def describe_sources(name: str) -> dict[str, str]:
  """Returns the addresses of an encoder's file.

  Args:
    name: The encoder's name, such as `dinov2reg_vit_base_14`.

  Returns:
    The address by source, for the sources that have the file.

  Raises:
    FileNotFoundError: If nobody has published weights of this encoder.
  """
  import huggingface_hub

  spec, addresses = published(name), {}
  if spec.hub_id:
    addresses[HUGGING_FACE] = huggingface_hub.hf_hub_url(spec.hub_id, _HUB_FILE)
  if spec.url:
    addresses[ORIGINAL] = spec.url
  return addresses


def _fetch_hub(name: str) -> EncoderFile:
  import huggingface_hub

  path = huggingface_hub.hf_hub_download(published(name).hub_id, _HUB_FILE)
  return _verify_hub_file(name, path)


def _verify_hub_file(name: str, path: str) -> EncoderFile:
  """Compares a file of the Hub's cache with the Hub's checksum of it.

  The Hub's cache names a large file by its sha256 and links to it. On systems
  without links, our cache records the sha256 found the first time.
  """
  link = pathlib.Path(path)
  file = link.resolve()
  if not re.fullmatch("[0-9a-f]{64}", file.name):
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    record = folder / f"{name}.{link.parent.name}.json"
    return EncoderFile(link, checksums.verify_file(link, record).sha256)
  sha256 = files.file_sha256(file)
  if sha256 != file.name:
    raise checksums.ChangedFileError(
      f"{link} has changed: its sha256 is {sha256}, but on the Hugging Face "
      f"Hub it is {file.name}. Delete {file} to have it fetched again."
    )
  return EncoderFile(link, sha256)


def _fetch_original(name: str) -> EncoderFile:
  path = cache_folder() / f"{name}.pth"
  if importlib.util.find_spec("torch") is None:
    raise ImportError(
      f"{published(name).url} is a PyTorch file; reading it needs PyTorch: "
      "pip install 'inp-former-jax[convert]'. The file of the Hugging Face "
      'Hub does not need it: `encoder_weights`="".'
    )
  spec = published(name)
  record = download.download_file(
    spec.url, path, sha256=spec.url_sha256 or None
  )
  return EncoderFile(path, record.sha256)


def import_into_cache(
  name: str, file: pathlib.Path, *, replace: bool = False
) -> EncoderFile:
  """Copies a file into our cache, atomically and with its record.

  Args:
    name: Name of the encoder whose weights the file holds.
    file: The file to copy: `.npz`, `.safetensors`, `.pth` or `.pt`.
    replace: Whether to replace files of this encoder that are already in the
      cache.

  Returns:
    The copy.

  Raises:
    FileExistsError: If the cache already has a file of this encoder, and
      `replace` is false.
  """
  present = _cached_paths(name)
  if present and not replace:
    raise FileExistsError(
      f"The cache already has weights of the encoder {name}: {present[0]}. "
      "Pass --replace to replace them by the given file."
    )
  suffix = ".pth" if file.suffix.lower() == ".pt" else file.suffix.lower()
  target = cache_folder() / (name + suffix)
  with replacing(target) as copy:
    # copyfile leaves out the original's mode, which may be read-only.
    shutil.copyfile(file, copy)
    sha256 = files.file_sha256(copy)
    # In this order, a process killed in between leaves no wrong record.
    checksums.record_path(target).unlink(missing_ok=True)
  for old in set(present) - {target}:
    checksums.record_path(old).unlink(missing_ok=True)
    old.unlink()
  origin = file.resolve().as_uri()
  record = checksums.FileRecord(origin, target.stat().st_size, sha256)
  checksums.write_record(target, record)
  return EncoderFile(target, sha256)
