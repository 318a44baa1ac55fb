"""A web server on loopback that serves files, and fails on demand."""

import contextlib
import dataclasses
import hashlib
import http.server
import threading
import time
from collections.abc import Iterator


@dataclasses.dataclass
class FileServer:
  """What is served and how; tests change it between requests.

  Attributes:
    root: URL, without a slash at its end.
    files: Path -> content.
    headers: Further headers of every answer.
    supports_ranges: Whether a Range header is honoured.
    supports_if_range: Whether an If-Range header is honoured.
    sends_etag: Whether the content has a name.
    cut_after: Bytes of the body after which the next answers break off.
    statuses: Status of the next answers, instead of a file.
    delay: Seconds before an answer.
    gets: Range header of every GET of a file; None where there was none.
  """

  root: str = ""
  files: dict[str, bytes] = dataclasses.field(default_factory=dict)
  headers: dict[str, str] = dataclasses.field(default_factory=dict)
  supports_ranges: bool = True
  supports_if_range: bool = True
  sends_etag: bool = True
  cut_after: list[int] = dataclasses.field(default_factory=list)
  statuses: list[int] = dataclasses.field(default_factory=list)
  delay: float = 0.0
  gets: list[str | None] = dataclasses.field(default_factory=list)


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
      self.server_state.gets.append(self.headers.get("Range"))
    time.sleep(self.server_state.delay)
    self._answer(with_body=True)

  def _answer(self, with_body: bool) -> None:
    state = self.server_state
    content = state.files.get(self.path)
    if with_body and state.statuses:
      return self.send_error(state.statuses.pop(0))
    if content is None:
      return self.send_error(404)
    etag = f'"{hashlib.sha256(content).hexdigest()}"'
    start = self._start(etag)
    if start and start >= len(content):
      return self._refuse_range(len(content))
    self.send_response(206 if start else 200)
    if start:
      span = f"bytes {start}-{len(content) - 1}/{len(content)}"
      self.send_header("Content-Range", span)
    self.send_header("Content-Length", str(len(content) - start))
    if state.sends_etag:
      self.send_header("ETag", etag)
    for name, value in state.headers.items():
      self.send_header(name, value)
    self.end_headers()
    if with_body:
      cut = state.cut_after.pop(0) if state.cut_after else None
      self.wfile.write(content[start:][:cut])

  def _refuse_range(self, size: int) -> None:
    self.send_response(416)
    self.send_header("Content-Range", f"bytes */{size}")
    self.send_header("Content-Length", "0")
    self.end_headers()

  def _start(self, etag: str) -> int:
    """First byte asked for."""
    span = self.headers.get("Range", "")
    state = self.server_state
    same = self.headers.get("If-Range", etag) == etag
    same = same or not state.supports_if_range
    if not (state.supports_ranges and span and same):
      return 0
    return int(span.removeprefix("bytes=").split("-")[0])
