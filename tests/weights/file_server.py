"""A web server on loopback that serves files, and fails on demand."""

import contextlib
import dataclasses
import hashlib
import http.server
import threading
import time
import types
from collections.abc import Iterator

import pooch
import pytest


@dataclasses.dataclass
class FileServer:
  """What is served and how; tests change it between requests.

  Attributes:
    root: URL, without a slash at its end.
    files: Path -> content.
    headers: Further headers of every answer.
    cut_after: Bytes of the body after which the next answers break off.
    statuses: Status of the next answers, instead of a file.
    delay: Seconds before an answer.
    gets: Path of every GET of a file.
  """

  root: str = ""
  files: dict[str, bytes] = dataclasses.field(default_factory=dict)
  headers: dict[str, str] = dataclasses.field(default_factory=dict)
  cut_after: list[int] = dataclasses.field(default_factory=list)
  statuses: list[int] = dataclasses.field(default_factory=list)
  delay: float = 0.0
  gets: list[str] = dataclasses.field(default_factory=list)


@contextlib.contextmanager
def serve_files() -> Iterator[FileServer]:
  """Serves while the context lasts."""
  state = FileServer()

  class Handler(_Handler):
    server_state = state

  server = _Server(("127.0.0.1", 0), Handler)
  state.root = f"http://127.0.0.1:{server.server_address[1]}"
  thread = threading.Thread(
    target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
  )
  thread.start()
  try:
    yield state
  finally:
    server.shutdown()
    server.server_close()
    thread.join(timeout=5)


def skip_waits(monkeypatch: pytest.MonkeyPatch) -> None:
  """Lets pooch try again at once, not after some seconds."""
  no_waits = types.SimpleNamespace(sleep=lambda seconds: None)
  monkeypatch.setattr(pooch.core, "time", no_waits)


class _Server(http.server.ThreadingHTTPServer):
  daemon_threads = True

  def handle_error(self, *unused) -> None:
    """A client that hung up is part of the tests."""


class _Handler(http.server.BaseHTTPRequestHandler):
  server_state: FileServer
  timeout = 20  # seconds; no connection outlives its test by more

  def log_message(self, *unused) -> None:
    pass

  def do_HEAD(self) -> None:
    self._answer(with_body=False)

  def do_GET(self) -> None:
    if not self.path.startswith("/api/"):  # what the Hub's library asks else
      self.server_state.gets.append(self.path)
    time.sleep(self.server_state.delay)
    self._answer(with_body=True)

  def _answer(self, with_body: bool) -> None:
    state = self.server_state
    content = state.files.get(self.path)
    if with_body and state.statuses:
      return self.send_error(state.statuses.pop(0))
    if content is None:
      return self.send_error(404)
    self.send_response(200)
    self.send_header("Content-Length", str(len(content)))
    self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
    for name, value in state.headers.items():
      self.send_header(name, value)
    self.end_headers()
    if with_body:
      cut = state.cut_after.pop(0) if state.cut_after else None
      self.wfile.write(content[:cut])
