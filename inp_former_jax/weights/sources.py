"""An encoder's name -> a file with its weights: cached, or downloaded."""

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
_SUFFIXES = (".npz", ".safetensors", ".pth")  # in the order of preference
_COMMAND = "python -m inp_former_jax.models.pretrained"


@dataclasses.dataclass(frozen=True)
class EncoderFile:
  """A file with an encoder's weights, verified.

  Attributes:
    path: The file.
    sha256: In hex.
  """

  path: pathlib.Path
  sha256: str


def cache_folder() -> pathlib.Path:
  """Where files imported by hand and original ones are kept."""
  folder = os.environ.get(CACHE_VARIABLE) or "~/.cache/inp_former_jax/encoders"
  return pathlib.Path(folder).expanduser()


def published(name: str) -> EncoderSpec:
  """An encoder whose weights can be downloaded.

  Args:
    name: The encoder's name, such as `dinov2reg_vit_base_14`.

  Returns:
    Its row of ENCODERS.

  Raises:
    FileNotFoundError: If nobody has published its weights.
    ValueError: If there is no encoder of that name.
  """
  spec = get_encoder(name)
  if spec.bundled_file:
    raise FileNotFoundError(
      f"The encoder {name} comes with this package and from nowhere else: "
      'leave config.model.encoder_weights empty ("").'
    )
  if not spec.is_published:
    names = [s.name for s in ENCODERS.values() if s.is_published]
    raise FileNotFoundError(
      f"The encoder {name} has no published weights; those of "
      f"{', '.join(names)} have. Pass a file: "
      "--config.model.encoder_weights=FILE, or train on a random encoder, "
      "which serves tests only: --config.model.encoder_weights=random."
    )
  return spec


def bundled(name: str) -> EncoderFile | None:
  """The encoder's file within this package; None where there is none.

  Args:
    name: Such as `demo_vit_tiny_14`.

  Raises:
    FileNotFoundError: The package has been installed without it.
    ChangedFileError: The file is not what was shipped.
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
      f"{path} has changed: its sha256 is {sha256}, shipped was {shipped}. "
      "Install inp-former-jax again."
    )
  return EncoderFile(path, sha256)


def find_cached(name: str) -> EncoderFile | None:
  """The encoder's file on this machine: bundled, in our cache, in the Hub's.

  Args:
    name: Such as `dinov2reg_vit_base_14`.

  Raises:
    ChangedFileError: The file is not what it was.
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
  """The encoder's file on this machine, or else from the Hugging Face Hub.

  Args:
    name: Such as `dinov2reg_vit_base_14`.

  Raises:
    FileNotFoundError: Nobody has published weights of this variant.
    DownloadError: It is not here and cannot be downloaded.
    ChangedFileError: The file is not what it was.
  """
  return find_cached(name) or fetch(name, HUGGING_FACE)


def fetch(name: str, source: str) -> EncoderFile:
  """The encoder's file from one source, downloaded unless it is here.

  Args:
    name: Such as `dinov2reg_vit_base_14`.
    source: One of SOURCES.

  Raises:
    FileNotFoundError: Nobody has published weights of this variant.
    DownloadError: It is not here and cannot be downloaded.
    ChangedFileError: The file is not what it was.
    ImportError: An original file, and no PyTorch to read it.
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
  # Whichever library carries the hub's requests has exceptions of its own.
  except Exception as error:
    raise download.DownloadError(_remedy(name, url, error)) from error


def _remedy(name: str, url: str, error: Exception) -> str:
  found = str(error)
  if not isinstance(error, download.DownloadError):
    # The hub's own error says "check your connection" even if the offline
    # switch is on; what it comes from knows.
    cause = error.__cause__ or error
    reason = str(cause).strip().split("\n")[0] or type(cause).__name__
    found = f"{url} cannot be downloaded: {reason}"
  listing = "\n".join(
    f"  {address}{' (needs the extra `convert`)' if source == ORIGINAL else ''}"
    for source, address in describe_sources(name).items()
  )
  return (
    f"The weights of the encoder {name} are not on this machine. {found}\n"
    "Try again with a connection, or fetch by hand one of\n"
    f"{listing}\n"
    f"and import it: {_COMMAND} import {name} FILE\n"
    "or pass its path: --config.model.encoder_weights=FILE. A random "
    "encoder serves tests only: --config.model.encoder_weights=random."
  )


def describe_sources(name: str) -> dict[str, str]:
  """Source -> address of the encoder's file there.

  Args:
    name: Such as `dinov2reg_vit_base_14`.

  Raises:
    FileNotFoundError: Nobody has published weights of this variant.
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

  The Hub's cache names a large file by its sha256 and links to it. Where it
  cannot link, the first sha256 found is noted in our cache.
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
      f"{link} has changed: its sha256 is {sha256}, on the Hugging Face Hub "
      f"it is {file.name}. Delete {file} to have it fetched again."
    )
  return EncoderFile(link, sha256)


def _fetch_original(name: str) -> EncoderFile:
  path = cache_folder() / f"{name}.pth"
  if importlib.util.find_spec("torch") is None:
    raise ImportError(
      f"{published(name).url} is a PyTorch file; reading it needs PyTorch: "
      "pip install 'inp-former-jax[convert]'. The file of the Hugging Face "
      'Hub needs nothing more: --config.model.encoder_weights="".'
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
    name: The encoder it holds.
    file: `.npz`, `.safetensors`, `.pth` or `.pt`.
    replace: Whether it takes the place of files that are there.

  Raises:
    FileExistsError: The cache has a file of this encoder.
  """
  present = _cached_paths(name)
  if present and not replace:
    raise FileExistsError(
      f"The cache has weights of the encoder {name} already: {present[0]}. "
      "Say --replace to use the file given instead."
    )
  suffix = ".pth" if file.suffix.lower() == ".pt" else file.suffix.lower()
  target = cache_folder() / (name + suffix)
  with replacing(target) as copy:
    # Without the mode of the original, which may be read-only.
    shutil.copyfile(file, copy)
    sha256 = files.file_sha256(copy)
    # In this order a kill in between leaves no record of another file.
    checksums.record_path(target).unlink(missing_ok=True)
  for old in set(present) - {target}:
    checksums.record_path(old).unlink(missing_ok=True)
    old.unlink()
  origin = file.resolve().as_uri()
  record = checksums.FileRecord(origin, target.stat().st_size, sha256)
  checksums.write_record(target, record)
  return EncoderFile(target, sha256)
