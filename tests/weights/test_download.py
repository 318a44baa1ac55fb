"""Downloads from a server on loopback that fails in every way."""

import errno
import hashlib
import json
import os
import pathlib
import socket
import subprocess
import sys

import numpy as np
import pooch
import pytest

from inp_former_jax.weights import checksums, download
from tests.conftest import ROOT
from tests.weights.file_server import serve_files, skip_waits

CONTENT = np.random.default_rng(0).bytes(3_000_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
OTHER = CONTENT[::-1]


@pytest.fixture
def server(monkeypatch):
  monkeypatch.setenv("NO_PROXY", "127.0.0.1")
  skip_waits(monkeypatch)
  with serve_files() as server:
    server.files["/encoder.pth"] = CONTENT
    yield server


@pytest.fixture
def fetch(server, tmp_path):
  """Downloads the server's file to `fetch.target`."""

  def fetch(path="/encoder.pth", sha256=None):
    url = server.root + path
    return download.download_file(url, fetch.target, sha256=sha256)

  fetch.target = tmp_path / "cache" / "encoder.pth"
  return fetch


def files_in_cache(fetch) -> set[str]:
  """All but the lock."""
  names = {file.name for file in fetch.target.parent.iterdir()}
  return names - {"encoder.pth.lock"}


def assert_names_both(error, server, fetch, path="/encoder.pth") -> None:
  assert str(fetch.target) in str(error.value)
  assert server.root + path in str(error.value)


def test_file_arrives_whole_with_its_record(server, fetch):
  record = fetch(sha256=SHA256)
  assert fetch.target.read_bytes() == CONTENT
  assert files_in_cache(fetch) == {"encoder.pth", "encoder.pth.json"}
  assert json.loads((fetch.target.parent / "encoder.pth.json").read_text()) == {
    "url": f"{server.root}/encoder.pth",
    "size": len(CONTENT),
    "sha256": SHA256,
  }
  assert record.sha256 == SHA256


@pytest.mark.skipif(os.name != "posix", reason="other systems have no modes")
def test_file_may_be_read_by_others(fetch):
  fetch()
  assert fetch.target.stat().st_mode & 0o777 == 0o644


def test_file_that_is_there_is_verified_not_fetched(server, fetch):
  assert fetch() == fetch() == fetch(sha256=SHA256)
  assert server.gets == ["/encoder.pth"]
  with pytest.raises(download.DownloadError, match=f"sha256 is {SHA256}") as e:
    fetch(sha256="0" * 64)
  assert_names_both(e, server, fetch)
  assert fetch.target.read_bytes() == CONTENT


def test_connection_that_was_cut_is_tried_again(server, fetch):
  server.cut_after = [1_000_000, 0]
  fetch()
  assert len(server.gets) == 3
  assert fetch.target.read_bytes() == CONTENT
  assert files_in_cache(fetch) == {"encoder.pth", "encoder.pth.json"}


def test_connection_that_is_always_cut_leaves_nothing(server, fetch):
  server.cut_after = [1_000_000] * 9
  with pytest.raises(download.DownloadError, match="broke off") as error:
    fetch()
  assert_names_both(error, server, fetch)
  assert "1000000 bytes read, 2000000 more expected" in str(error.value)
  assert len(server.gets) == 4
  assert files_in_cache(fetch) == set()


def test_wrong_checksum_leaves_nothing(server, fetch):
  with pytest.raises(download.DownloadError, match="another file") as error:
    fetch(sha256="0" * 64)
  assert_names_both(error, server, fetch)
  assert SHA256 in str(error.value) and "0" * 64 in str(error.value)
  assert files_in_cache(fetch) == set()


def test_record_of_a_deleted_file_is_replaced(server, fetch):
  fetch()
  fetch.target.unlink()
  server.files["/encoder.pth"] = OTHER
  assert fetch() == fetch()
  assert fetch.target.read_bytes() == OTHER


def test_missing_file_is_named(server, fetch):
  with pytest.raises(download.DownloadError, match="404.*have moved") as error:
    fetch("/encodr.pth")
  assert_names_both(error, server, fetch, "/encodr.pth")
  assert files_in_cache(fetch) == set()


def test_overloaded_server_is_asked_again(server, fetch):
  server.statuses = [500, 503]
  fetch()
  assert len(server.gets) == 3
  assert fetch.target.read_bytes() == CONTENT


def test_server_that_stays_overloaded_is_given_up(server, fetch):
  server.statuses = [503] * 9
  with pytest.raises(download.DownloadError, match="503.*overloaded") as error:
    fetch()
  assert_names_both(error, server, fetch)
  assert len(server.gets) == 4
  assert files_in_cache(fetch) == set()


def test_server_that_does_not_answer_is_given_up(server, fetch, monkeypatch):
  monkeypatch.setattr(pooch.downloaders, "DEFAULT_TIMEOUT", 0.05)
  server.delay = 0.2
  with pytest.raises(download.DownloadError, match="not answer.*timed out"):
    fetch()
  assert files_in_cache(fetch) == set()


def test_full_disk_leaves_nothing(server, fetch, monkeypatch):
  def fill(self, url, output_file, downloads):
    pathlib.Path(output_file).write_bytes(CONTENT[:1000])
    raise OSError(errno.ENOSPC, "No space left on device")

  with monkeypatch.context() as patch:
    patch.setattr(pooch.HTTPDownloader, "__call__", fill)
    with pytest.raises(download.DownloadError, match="No space left") as error:
      fetch()
  assert_names_both(error, server, fetch)
  assert "another disk" in str(error.value)
  assert files_in_cache(fetch) == set()
  fetch()
  assert fetch.target.read_bytes() == CONTENT


def test_unreachable_server_is_named(server, fetch):
  with socket.socket() as unused:
    unused.bind(("127.0.0.1", 0))
    server.root = f"http://127.0.0.1:{unused.getsockname()[1]}"
    with pytest.raises(
      download.DownloadError, match="cannot be reached"
    ) as error:
      fetch()
  assert_names_both(error, server, fetch)
  assert "HTTPS_PROXY" in str(error.value)
  assert files_in_cache(fetch) == set()


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
  assert "".join(errors).count("Downloading file 'encoder.pth'") == 1
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
