"""A server on loopback that stands for Google Cloud Storage.

It knows what TensorStore and gcsfs ask for of its JSON interface, among it the
generations of objects, by which TensorStore tells whether another has written.
"""

import contextlib
import http.server
import itertools
import json
import re
import sys
import threading
import urllib.parse
from collections.abc import Generator

BUCKET = "bucket"
_OBJECT = re.compile(r"(?:/download)?/storage/v1/b/([^/]+)/o/([^?]+)")
_UPLOAD = re.compile(r"/upload/storage/v1/b/([^/]+)/o")
_BATCH = "/batch/storage/v1"


class _Server(http.server.ThreadingHTTPServer):
  request_queue_size = 128
  daemon_threads = True

  def __init__(self):
    super().__init__(("127.0.0.1", 0), _Handler)
    self.objects: dict[str, tuple[bytes, int]] = {}  # content, generation
    self.uploads: dict[str, tuple[str, bytearray]] = {}
    self.lock = threading.Lock()
    self.numbers = itertools.count(1)

  def handle_error(self, request, client_address):
    """Prints nothing where a client was killed, as tests do."""
    if not isinstance(sys.exception(), ConnectionError):
      super().handle_error(request, client_address)


class _Handler(http.server.BaseHTTPRequestHandler):
  protocol_version = "HTTP/1.1"
  disable_nagle_algorithm = True
  wbufsize = -1  # an answer is sent in one piece
  server: _Server

  def log_message(self, format, *args):
    """Prints nothing."""

  def do_GET(self):
    path, query = self._parsed()
    if path.rstrip("/") == f"/storage/v1/b/{BUCKET}":
      return self._answer(200, {"kind": "storage#bucket", "name": BUCKET})
    if path == f"/storage/v1/b/{BUCKET}/o":
      return self._answer(200, self._listing(query))
    found = _OBJECT.fullmatch(path)
    if not found or found[1] != BUCKET:
      return self._answer(404, {"error": {"code": 404, "message": "none"}})
    name = urllib.parse.unquote(found[2])
    with self.server.lock:
      content, generation = self.server.objects.get(name, (b"", 0))
    if not generation:
      return self._answer(404, {"error": {"code": 404, "message": name}})
    if query.get("ifGenerationNotMatch") == str(generation):
      return self._answer(304)
    if query.get("alt") != "media" and not path.startswith("/download"):
      return self._answer(200, _metadata(name, content, generation))
    return self._send(content, generation)

  def do_POST(self):
    path, query = self._parsed()
    body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
    if path == _BATCH:
      return self._batch(body.decode())
    if path.startswith("/resumable/"):
      return self._continue(path, body)
    found = _UPLOAD.fullmatch(path)
    if not found or found[1] != BUCKET:
      return self._answer(404, {"error": {"code": 404, "message": path}})
    if query["uploadType"] == "resumable":
      name = query.get("name") or json.loads(body)["name"]
      place = f"/resumable/{next(self.server.numbers)}"
      self.server.uploads[place] = name, bytearray()
      address = f"http://127.0.0.1:{self.server.server_port}{place}"
      return self._answer(200, {}, Location=address)
    if query["uploadType"] == "media":
      return self._store(query["name"], body, query)
    boundary = self.headers["Content-Type"].split("boundary=")[1].strip('"')
    _, header, rest = body.split(f"--{boundary}".encode(), 2)
    name = json.loads(header.replace(b"\r\n", b"\n").split(b"\n\n", 1)[1])
    content = rest.rsplit(f"\n--{boundary}--".encode(), 1)[0]
    content = content.split(b"\n\n", 1)[1]
    return self._store(name["name"], content, query)

  do_PUT = do_POST

  def do_DELETE(self):
    path, query = self._parsed()
    self._answer(self._delete(path, query))

  def _parsed(self) -> tuple[str, dict[str, str]]:
    address = urllib.parse.urlsplit(self.path)
    return address.path, dict(urllib.parse.parse_qsl(address.query))

  def _delete(self, path: str, query: dict[str, str]) -> int:
    found = _OBJECT.fullmatch(path)
    with self.server.lock:
      name = urllib.parse.unquote(found[2]) if found else ""
      if not self._as_expected(name, query):
        return 412
      return 204 if self.server.objects.pop(name, None) else 404

  def _as_expected(self, name: str, query: dict[str, str]) -> bool:
    generation = self.server.objects.get(name, (b"", 0))[1]
    return query.get("ifGenerationMatch") in (None, str(generation))

  def _store(self, name: str, content: bytes, query: dict[str, str]):
    with self.server.lock:
      if not self._as_expected(name, query):
        return self._answer(412, {"error": {"code": 412, "message": name}})
      generation = next(self.server.numbers)
      self.server.objects[name] = bytes(content), generation
    return self._answer(200, _metadata(name, content, generation))

  def _continue(self, place: str, body: bytes):
    name, content = self.server.uploads[place]
    content += body
    total = self.headers["Content-Range"].rsplit("/", 1)[1]
    if total == "*" or len(content) < int(total):
      return self._answer(308, Range=f"bytes=0-{len(content) - 1}")
    return self._store(name, content, {})

  def _batch(self, body: str):
    answers = []
    for path in re.findall(r"DELETE (\S+) HTTP", body):
      code = self._delete(urllib.parse.urlsplit(path).path, {})
      answers.append(f"--batch\r\n\r\nHTTP/1.1 {code} None\r\n\r\n")
    content = ("".join(answers) + "--batch--").encode()
    self._write(
      200, content, {"Content-Type": "multipart/mixed; boundary=batch"}
    )

  def _listing(self, query: dict[str, str]) -> dict:
    prefix, delimiter = query.get("prefix", ""), query.get("delimiter")
    first, end = query.get("startOffset", ""), query.get("endOffset")
    items, prefixes = [], set()
    with self.server.lock:
      objects = sorted(self.server.objects.items())
    for name, (content, generation) in objects:
      if not name.startswith(prefix) or name < first or (end and name >= end):
        continue
      rest = name[len(prefix) :]
      if delimiter and delimiter in rest:
        prefixes.add(prefix + rest.split(delimiter)[0] + delimiter)
      else:
        items.append(_metadata(name, content, generation))
    return {"items": items, "prefixes": sorted(prefixes)}

  def _send(self, content: bytes, generation: int):
    headers = {"x-goog-generation": str(generation)}
    code, wanted = 200, self.headers.get("Range")
    if wanted:
      first, last = wanted.removeprefix("bytes=").split("-")
      start = int(first) if first else len(content) - int(last)
      stop = min(
        int(last) + 1 if first and last else len(content), len(content)
      )
      headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(content)}"
      code, content = 206, content[start:stop]
    self._write(code, content, headers)

  def _answer(self, code: int, value: dict | None = None, **headers: str):
    content = b"" if value is None else json.dumps(value).encode()
    self._write(code, content, {"Content-Type": "application/json"} | headers)

  def _write(self, code: int, content: bytes, headers: dict[str, str]):
    self.send_response(code)
    for name, value in headers.items():
      self.send_header(name, value)
    if code not in (204, 304):
      self.send_header("Content-Length", str(len(content)))
    self.end_headers()
    if code not in (204, 304):
      self.wfile.write(content)


def _metadata(name: str, content: bytes, generation: int) -> dict:
  time = "2026-01-01T00:00:00.000Z"
  return {
    "kind": "storage#object",
    "name": name,
    "bucket": BUCKET,
    "size": str(len(content)),
    "generation": str(generation),
    "timeCreated": time,
    "updated": f"{time[:17]}{generation % 60:02d}.000Z",
  }


@contextlib.contextmanager
def serve_bucket() -> Generator[dict[str, str]]:
  """Serves an empty bucket named "bucket".

  Yields:
    The environment in which gs://bucket is on the server.
  """
  server = _Server()
  threading.Thread(target=server.serve_forever, daemon=True).start()
  address = f"http://127.0.0.1:{server.server_port}"
  try:
    yield {
      "STORAGE_EMULATOR_HOST": address,
      "TENSORSTORE_GCS_HTTP_URL": address,
      # gcsfs would ask another interface what kind of bucket it is.
      "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
    }
  finally:
    server.shutdown()
    server.server_close()
