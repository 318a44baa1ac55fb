"""Downloads from a server on loopback that fails in every way."""

import collections
import errno
import hashlib
import json
import shutil
import socket
import subprocess
import sys

import numpy as np
import pytest

from inp_former_jax.weights import checksums, download
from tests.conftest import ROOT
from tests.weights.file_server import serve_files

CONTENT = np.random.default_rng(0).bytes(3_000_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
OTHER = CONTENT[::-1]


@pytest.fixture
def server(monkeypatch):
  monkeypatch.setenv("NO_PROXY", "127.0.0.1")
  with serve_files() as server:
    server.files["/encoder.pth"] = CONTENT
    yield server


@pytest.fixture
def fetch(server, tmp_path):
  """Downloads the server's file to `fetch.target`."""

  def fetch(path="/encoder.pth", **options):
    options = {"backoff": 0.01, "timeout": 10} | options
    return download.download_file(server.root + path, fetch.target, **options)

  fetch.target = tmp_path / "cache" / "encoder.pth"
  return fetch


def left_behind(fetch) -> set[str]:
  """Files beside the target and its lock."""
  files = {file.name for file in fetch.target.parent.iterdir()}
  return files - {"encoder.pth", "encoder.pth.lock"}


def test_file_arrives_whole_with_its_record(server, fetch):
  record = fetch(size=len(CONTENT), sha256=SHA256)
  assert fetch.target.read_bytes() == CONTENT
  assert left_behind(fetch) == {"encoder.pth.json"}
  assert json.loads((fetch.target.parent / "encoder.pth.json").read_text()) == {
    "url": f"{server.root}/encoder.pth",
    "size": len(CONTENT),
    "sha256": SHA256,
  }
  assert record.sha256 == SHA256


def test_file_that_is_there_is_verified_not_fetched(server, fetch):
  fetch()
  fetch()
  assert server.gets == [None]
  with pytest.raises(download.DownloadError, match=f"sha256 is {SHA256}"):
    fetch(sha256="0" * 64)


def test_download_resumes_after_the_connection_was_cut(server, fetch, capsys):
  server.cut_after = [1_000_000]
  with pytest.raises(download.DownloadError) as error:
    fetch(retries=0)
  message = str(error.value)
  for words in (
    str(fetch.target),
    f"{server.root}/encoder.pth",
    f"1000000 of {len(CONTENT)} bytes",
    "same command goes on",
  ):
    assert words in message
  assert not fetch.target.exists()
  fetch(retries=0)
  assert server.gets == [None, "bytes=1000000-"]
  assert fetch.target.read_bytes() == CONTENT
  assert left_behind(fetch) == {"encoder.pth.json"}
  assert f"Downloading {server.root}" in capsys.readouterr().err


def test_cut_connections_are_retried_while_something_arrives(server, fetch):
  server.cut_after = [500_000] * 5
  fetch(retries=1)
  assert len(server.gets) == 6
  assert fetch.target.read_bytes() == CONTENT


def test_retries_that_bring_nothing_come_to_an_end(server, fetch):
  server.cut_after = [0] * 9
  with pytest.raises(download.DownloadError, match="connection was cut"):
    fetch(retries=2)
  assert len(server.gets) == 3


@pytest.mark.parametrize("ranges, etag", [(False, True), (True, False)])
def test_server_that_cannot_resume_starts_over(server, fetch, ranges, etag):
  server.supports_ranges, server.sends_etag = ranges, etag
  server.cut_after = [1_000_000]
  fetch(sha256=SHA256)
  assert len(server.gets) == 2
  assert fetch.target.read_bytes() == CONTENT


@pytest.mark.parametrize("if_range", [True, False])
@pytest.mark.parametrize("other", [OTHER, OTHER[:900_000]])
def test_remote_file_that_changed_in_between_starts_over(
  server, fetch, other, if_range
):
  server.supports_if_range = if_range
  server.cut_after = [1_000_000]
  with pytest.raises(download.DownloadError):
    fetch(retries=0)
  server.files["/encoder.pth"] = other
  fetch()
  assert fetch.target.read_bytes() == other


def test_part_of_another_address_is_not_resumed(server, fetch):
  server.files["/other.pth"] = OTHER
  server.cut_after = [1_000_000]
  with pytest.raises(download.DownloadError):
    fetch("/other.pth", retries=0)
  fetch()
  assert server.gets == [None, None]
  assert fetch.target.read_bytes() == CONTENT


def test_damaged_note_of_a_part_starts_over(server, fetch):
  server.cut_after = [1_000_000]
  with pytest.raises(download.DownloadError):
    fetch(retries=0)
  (fetch.target.parent / "encoder.pth.part.json").write_text('{"url"')
  fetch()
  assert server.gets == [None, None]
  assert fetch.target.read_bytes() == CONTENT


@pytest.mark.parametrize("surplus, gets", [(b"", 2), (b"more", 3)])
def test_part_with_all_bytes_is_taken_and_a_longer_one_dropped(
  server, fetch, surplus, gets
):
  server.cut_after = [1_000_000]
  with pytest.raises(download.DownloadError):
    fetch(retries=0)
  part = fetch.target.parent / "encoder.pth.part"
  part.write_bytes(CONTENT + surplus)
  fetch(sha256=SHA256)
  assert len(server.gets) == gets
  assert fetch.target.read_bytes() == CONTENT


def test_wrong_checksum_leaves_nothing(server, fetch):
  with pytest.raises(download.DownloadError) as error:
    fetch(sha256="0" * 64)
  assert SHA256 in str(error.value) and "0" * 64 in str(error.value)
  assert not fetch.target.exists()
  assert left_behind(fetch) == set()


def test_wrong_size_is_refused_before_the_download(server, fetch):
  with pytest.raises(download.DownloadError, match="3000000.*1234"):
    fetch(size=1234)
  assert not fetch.target.exists()
  assert left_behind(fetch) == set()


def test_missing_file_is_not_asked_for_again(server, fetch):
  with pytest.raises(download.DownloadError) as error:
    fetch("/encodr.pth")
  assert "404" in str(error.value)
  assert f"{server.root}/encodr.pth" in str(error.value)
  assert len(server.gets) == 1


def test_overloaded_server_is_asked_again(server, fetch):
  server.statuses = [500, 503]
  fetch()
  assert len(server.gets) == 3
  assert fetch.target.read_bytes() == CONTENT


def test_server_that_stays_overloaded_is_given_up(server, fetch):
  server.statuses = [503] * 9
  with pytest.raises(download.DownloadError, match="503"):
    fetch(retries=1)
  assert len(server.gets) == 2


def test_server_that_does_not_answer_is_given_up(server, fetch):
  server.delay = 1.0
  with pytest.raises(download.DownloadError, match="no answer.*timed out"):
    fetch(retries=0, timeout=0.2)


def test_space_is_checked_before_the_download(server, fetch, monkeypatch):
  usage = collections.namedtuple("usage", "total used free")
  monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(9, 9, 2_000_000))
  with pytest.raises(download.DownloadError) as error:
    fetch()
  assert "3000000 bytes are needed, 2000000 are free" in str(error.value)
  assert "another disk" in str(error.value)


def test_full_disk_keeps_what_arrived(server, fetch, monkeypatch):
  def full(file):
    raise OSError(errno.ENOSPC, "No space left on device")

  with monkeypatch.context() as patch:
    patch.setattr("os.fsync", full)
    with pytest.raises(download.DownloadError, match="no space is left"):
      fetch()
  assert not fetch.target.exists()
  assert left_behind(fetch) == {"encoder.pth.part", "encoder.pth.part.json"}
  fetch()
  assert fetch.target.read_bytes() == CONTENT


def test_closed_port_is_reported_at_once(fetch, tmp_path):
  with socket.socket() as unused:
    unused.bind(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{unused.getsockname()[1]}/encoder.pth"
    with pytest.raises(download.DownloadError) as error:
      download.download_file(url, fetch.target, backoff=60)
  assert "cannot be reached" in str(error.value)
  assert url in str(error.value) and str(fetch.target) in str(error.value)


def test_two_processes_at_once_download_once(server, fetch):
  server.delay = 1.0
  script = (
    "import pathlib, sys\n"
    "from inp_former_jax.weights import download\n"
    "download.download_file(sys.argv[1], pathlib.Path(sys.argv[2]))\n"
  )
  url = f"{server.root}/encoder.pth"
  command = [sys.executable, "-c", script, url, str(fetch.target)]
  processes = [
    subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    for _ in range(2)
  ]
  errors = [process.communicate(timeout=60)[1] for process in processes]
  assert [process.returncode for process in processes] == [0, 0], errors
  assert len(server.gets) == 1
  assert fetch.target.read_bytes() == CONTENT


def test_changed_file_is_refused(fetch):
  fetch()
  changed = bytearray(CONTENT)
  changed[1000] ^= 1
  fetch.target.write_bytes(changed)
  for check in (fetch, lambda: checksums.verify_file(fetch.target)):
    with pytest.raises(checksums.ChangedFileError) as error:
      check()
    assert str(fetch.target) in str(error.value)
    assert SHA256 in str(error.value)


def test_file_without_a_record_gets_one(tmp_path):
  file = tmp_path / "encoder.npz"
  file.write_bytes(CONTENT)
  record = checksums.verify_file(file)
  assert (record.url, record.size, record.sha256) == ("", len(CONTENT), SHA256)
  assert checksums.verify_file(file) == record
  file.write_bytes(OTHER)
  with pytest.raises(checksums.ChangedFileError):
    checksums.verify_file(file)


def test_damaged_record_is_named(tmp_path):
  file = tmp_path / "encoder.npz"
  file.write_bytes(CONTENT)
  record = tmp_path / "encoder.npz.json"
  for content in ("{", "[]", '{"url": ""}'):
    record.write_text(content)
    with pytest.raises(checksums.ChangedFileError, match="not the record"):
      checksums.verify_file(file)
