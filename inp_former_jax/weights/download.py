"""Downloads of large files: verified, atomic and only once per machine.

pooch does the work. It retries after an error, each time from the first byte:
what arrived before the connection broke is not kept.
"""

import pathlib
import sys

import filelock
import pooch
import requests

from inp_former_jax.weights import checksums, files

_RETRIES = 3
_CHUNK = 1 << 20  # bytes; by default pooch writes and flushes 1 KiB at a time


class DownloadError(OSError):
  """Raised when a file cannot be downloaded; says which, why and what to do."""


def download_file(
  url: str, target: pathlib.Path, *, sha256: str | None = None
) -> checksums.FileRecord:
  """Downloads a file, or verifies the one that already exists.

  The file appears under its name only when it is whole and verified, with its
  record beside it. If several processes ask for it at once, one of them
  downloads it and the others wait.

  Args:
    url: Address of the file, http or https.
    target: Path to write the file to; its folder is created if necessary.
    sha256: Checksum that the file must have, in hex; None if it is not known,
      in which case the first download is trusted.

  Returns:
    The record of the file.

  Raises:
    DownloadError: If the file cannot be downloaded, or its checksum is not
      the expected one.
    ChangedFileError: If the existing file differs from its record.
  """
  target.parent.mkdir(parents=True, exist_ok=True)
  with _locked(target):
    if target.exists():
      return _verify(url, target, sha256)
    try:
      return _download(url, target, sha256)
    except (OSError, ValueError) as error:
      raise DownloadError(
        f"{target} cannot be downloaded from {url}: {_explain(error)}"
      ) from error


def _locked(target: pathlib.Path):
  """Returns a context in which no other process downloads this file."""
  lock = filelock.FileLock(f"{target}.lock")
  try:
    return lock.acquire(timeout=0)
  except filelock.Timeout:
    print(
      f"Another process is downloading {target}; waiting for it.",
      file=sys.stderr,
    )
    return lock.acquire()


def _verify(
  url: str, target: pathlib.Path, sha256: str | None
) -> checksums.FileRecord:
  """Compares an existing file with its record and with the checksum."""
  record = checksums.verify_file(target)
  if sha256 not in (None, record.sha256):
    raise DownloadError(
      f"{target} is not the file expected from {url}: its sha256 is "
      f"{record.sha256}, but {sha256} was expected. Delete it to have it "
      "fetched again."
    )
  return record


def _download(
  url: str, target: pathlib.Path, sha256: str | None
) -> checksums.FileRecord:
  # In this order, a process killed in between leaves no wrong record.
  checksums.record_path(target).unlink(missing_ok=True)
  _fetch(url, target, sha256)
  record = checksums.FileRecord(
    url, target.stat().st_size, files.file_sha256(target)
  )
  checksums.write_record(target, record)
  return record


def _fetch(url: str, target: pathlib.Path, sha256: str | None) -> None:
  """Downloads by pooch, with a progress bar on a terminal.

  pooch writes to a temporary file in the same folder and then renames it.
  """
  downloads = pooch.Pooch(
    path=target.parent,
    base_url="",
    # pooch's documentation allows None, for no check; its annotation does not.
    # pyrefly: ignore[bad-assignment]
    registry={target.name: sha256},
    urls={target.name: url},
    retry_if_failed=_RETRIES,
  )
  downloader = pooch.HTTPDownloader(
    progressbar=sys.stderr.isatty(),
    chunk_size=_CHUNK,
    hooks={"response": _close_refusal},
  )
  # pooch's own downloader does not match pooch's type annotation.
  # pyrefly: ignore[bad-argument-type]
  downloads.fetch(target.name, downloader=downloader)
  # Temporary files are readable only by their owner; a cache may be shared.
  target.chmod(0o644)


def _close_refusal(response: requests.Response, **unused) -> None:
  """Closes the connection after an error, which pooch would leave open."""
  if not response.ok:
    response.close()


def _explain(error: OSError | ValueError) -> str:
  """Describes what went wrong and what to do about it."""
  reason = str(error).rstrip(".")
  response = getattr(error, "response", None)
  if isinstance(error, requests.HTTPError) and response is not None:
    answer = f"{response.status_code} {response.reason}"
    return (
      f"the server answers {answer}. The file may have moved, may need a login "
      "or another network, or the server may be overloaded: try again later."
    )
  if isinstance(error, requests.ConnectionError | requests.Timeout):
    return (
      f"the server cannot be reached or does not answer ({reason}). Check the "
      "connection and the proxy (HTTPS_PROXY)."
    )
  if isinstance(error, requests.RequestException):
    return (
      f"the transfer broke off ({reason}). Try again: it starts from the "
      "first byte."
    )
  if isinstance(error, ValueError):  # from pooch, for a wrong checksum
    return (
      f"{reason}. Try again; if this error comes back, there is another file "
      "at this address now."
    )
  return (
    f"it cannot be written ({reason}). Free some space, or choose a folder on "
    "another disk that you may write to."
  )
