"""Downloads of large files: resumed, verified, atomic, once per machine."""

import dataclasses
import errno
import http.client
import json
import os
import pathlib
import shutil
import sys
import time
import urllib.error
import urllib.request

import filelock
import rich.console
import rich.progress

from inp_former_jax.weights import checksums, files

_CHUNK = 1 << 20  # bytes
_RESUMES = "What has arrived is kept: the same command goes on from there."


class DownloadError(OSError):
  """A file could not be downloaded; says which, why and what to do."""


class _Interrupted(Exception):
  """This attempt failed in a way that the next one may not."""


@dataclasses.dataclass(frozen=True)
class _Request:
  """A file that is asked for, and the part of it that is here."""

  url: str
  target: pathlib.Path
  size: int | None
  sha256: str | None
  timeout: float

  @property
  def part(self) -> pathlib.Path:
    return self.target.with_name(self.target.name + ".part")

  @property
  def part_origin(self) -> pathlib.Path:
    return self.target.with_name(self.target.name + ".part.json")

  @property
  def received(self) -> int:
    return self.part.stat().st_size if self.part.exists() else 0

  def error(self, found: str, remedy: str) -> DownloadError:
    return DownloadError(
      f"{self.target} cannot be downloaded from {self.url}: {found}. {remedy}"
    )

  def drop_part(self) -> None:
    self.part.unlink(missing_ok=True)
    self.part_origin.unlink(missing_ok=True)


def download_file(
  url: str,
  target: pathlib.Path,
  *,
  size: int | None = None,
  sha256: str | None = None,
  retries: int = 3,
  backoff: float = 1.0,
  timeout: float = 30.0,
) -> checksums.FileRecord:
  """Downloads a file, or verifies the one that is there already.

  The file grows as `TARGET.part` and gets its name when it is whole and
  verified; its record lies beside it. Of several processes that ask at once,
  one downloads and the others wait.

  Args:
    url: Of the file, http or https.
    target: Where it goes; folders are made.
    size: Bytes it must have, if known.
    sha256: Checksum it must have in hex, if known.
    retries: Further attempts in a row that may bring nothing when the
      connection is cut or the server is overloaded.
    backoff: Seconds before the first of them; doubled each time.
    timeout: Seconds without an answer.

  Returns:
    The record of the file.

  Raises:
    DownloadError: It could not be downloaded, or is not the file expected.
    ChangedFileError: The file that was there is not what its record says.
  """
  target.parent.mkdir(parents=True, exist_ok=True)
  request = _Request(url, target, size, sha256, timeout)
  with _locked(target):
    if not target.exists():
      _transfer_with_retries(request, retries, backoff)
      return _finish(request)
    record = checksums.verify_file(target)
    _check(request, record)
    return record


def _locked(target: pathlib.Path):
  """Context in which no other process downloads this file."""
  lock = filelock.FileLock(f"{target}.lock")
  try:
    return lock.acquire(timeout=0)
  except filelock.Timeout:
    print(f"Another process fetches {target}; waiting.", file=sys.stderr)
    return lock.acquire()


def _transfer_with_retries(
  request: _Request, retries: int, backoff: float
) -> None:
  """Brings the part to its full length."""
  failures = 0
  while True:
    before = request.received
    try:
      return _transfer(request)
    except _Interrupted as error:
      # An attempt that brought something is no failure in a row.
      failures = 1 if request.received > before else failures + 1
      if failures > retries:
        raise request.error(str(error), _RESUMES) from error
      time.sleep(backoff * 2 ** (failures - 1))
    except OSError as error:
      if error.errno != errno.ENOSPC:
        raise
      raise request.error(
        f"no space is left after {request.received} bytes",
        f"Free some, or choose a folder on another disk. {_RESUMES}",
      ) from error


def _transfer(request: _Request) -> None:
  """One attempt: a request for what is missing, appended to the part."""
  validator = _known_validator(request)
  if not validator:
    request.drop_part()
  response = _open(request, validator)
  if response is None:
    return
  with response:
    resumed = response.status == 206
    if resumed and not _continues(request, validator, response):
      request.drop_part()
      raise _Interrupted("the server sent another range than asked for")
    if not resumed:
      _start_part(request, response)
    start = request.received
    length = response.headers.get("Content-Length")
    total = None if length is None else start + int(length)
    _check_size(request, total)
    _check_space(request, total, start)
    _append(request, response, start, total)
  if total is not None and request.received < total:
    raise _Interrupted(
      f"the connection was cut after {request.received} of {total} bytes"
    )


def _open(request: _Request, validator: str) -> http.client.HTTPResponse | None:
  """The server's answer, 200 or 206; None if nothing is missing."""
  headers = {"User-Agent": "inp-former-jax"}
  if validator:
    # The server sends all of it (200) if the file is not the same any more.
    headers["Range"] = f"bytes={request.received}-"
    headers["If-Range"] = validator
  asked = urllib.request.Request(request.url, headers=headers)
  try:
    return urllib.request.urlopen(asked, timeout=request.timeout)
  except urllib.error.HTTPError as error:
    error.close()
    if error.code == 416:  # nothing there from the end of the part on
      if error.headers.get("Content-Range") == f"bytes */{request.received}":
        return None
      request.drop_part()
    found = f"the server answers {error.code} {error.reason}"
    if error.code >= 500 or error.code in (408, 416, 429):
      raise _Interrupted(found) from error
    raise request.error(
      found, "The file has moved, or needs a login or another network."
    ) from error
  except urllib.error.URLError as error:
    raise request.error(
      f"the server cannot be reached ({error.reason})",
      "Check the connection and the proxy (HTTPS_PROXY).",
    ) from error
  except (OSError, http.client.HTTPException) as error:
    raise _Interrupted(f"no answer ({error!r})") from error


def _continues(
  request: _Request, validator: str, response: http.client.HTTPResponse
) -> bool:
  """Whether a partial answer starts where the part ends, of the same file."""
  etag = response.headers.get("ETag", "")
  if etag and validator.startswith('"') and etag != validator:
    return False  # a server that knows ranges and no If-Range
  span = response.headers.get("Content-Range", "")
  return span.startswith(f"bytes {request.received}-")


def _known_validator(request: _Request) -> str:
  """What tells that the remote file is still that of the part, or ""."""
  if not request.received or not request.part_origin.exists():
    return ""
  try:
    origin = json.loads(request.part_origin.read_text(encoding="utf-8"))
    return origin["validator"] if origin["url"] == request.url else ""
  except (ValueError, TypeError, KeyError):  # killed while writing it
    return ""


def _start_part(request: _Request, response: http.client.HTTPResponse) -> None:
  """Drops what was there and notes which version of the file begins."""
  request.drop_part()
  validator = response.headers.get("ETag", "")
  if not validator or validator.startswith("W/"):  # weak: not byte by byte
    validator = response.headers.get("Last-Modified", "")
  origin = {"url": request.url, "validator": validator}
  request.part_origin.write_text(json.dumps(origin), encoding="utf-8")


def _append(request: _Request, response, start: int, total: int | None) -> None:
  console = rich.console.Console(stderr=True)
  bar = rich.progress.Progress(
    rich.progress.TextColumn("{task.description}"),
    rich.progress.BarColumn(12),
    rich.progress.DownloadColumn(binary_units=True),
    rich.progress.TransferSpeedColumn(),
    rich.progress.TimeRemainingColumn(compact=True),
    console=console,
    disable=not console.is_terminal,
  )
  if bar.disable:
    print(f"Downloading {request.url} to {request.target}", file=sys.stderr)
  with open(request.part, "ab") as file, bar:
    task = bar.add_task(request.target.name, total=total, completed=start)
    while chunk := _read(response):
      file.write(chunk)
      bar.advance(task, len(chunk))
    file.flush()
    os.fsync(file.fileno())


def _read(response: http.client.HTTPResponse) -> bytes:
  try:
    return response.read1(_CHUNK)
  except (OSError, http.client.HTTPException) as error:
    raise _Interrupted(f"the connection was cut ({error!r})") from error


def _check_size(request: _Request, total: int | None) -> None:
  if request.size is not None and total not in (None, request.size):
    request.drop_part()
    raise request.error(
      f"it has {total} bytes there, expected are {request.size}",
      "Another file lies at this address now.",
    )


def _check_space(request: _Request, total: int | None, start: int) -> None:
  free = shutil.disk_usage(request.target.parent).free
  if total is not None and total - start > free:
    raise request.error(
      f"{total - start} bytes are needed, {free} are free",
      "Free some, or choose a folder on another disk.",
    )


def _check(request: _Request, record: checksums.FileRecord) -> None:
  """Compares what is here with what the caller knows of the file."""
  for name in ("size", "sha256"):
    expected, found = getattr(request, name), getattr(record, name)
    if expected is not None and found != expected:
      raise request.error(
        f"its {name} is {found}, expected is {expected}",
        "It is damaged or another file: delete it and try again. If this "
        "comes back, the file at this address has changed.",
      )


def _finish(request: _Request) -> checksums.FileRecord:
  """Verifies the part and gives it its name."""
  sha256 = files.file_sha256(request.part)
  record = checksums.FileRecord(request.url, request.received, sha256)
  try:
    _check(request, record)
  except DownloadError:
    request.drop_part()
    raise
  # In this order a kill in between leaves no record of another file.
  checksums.record_path(request.target).unlink(missing_ok=True)
  os.replace(request.part, request.target)
  request.part_origin.unlink(missing_ok=True)
  checksums.write_record(request.target, record)
  return record
