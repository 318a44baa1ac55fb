"""Opening image files: what is refused, what is read, and how it is named."""

import os
import pathlib
import socket
import struct
import subprocess
import sys
import threading
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from inp_former_jax.data import image_files, loader, transforms
from inp_former_jax.data.errors import DataError
from inp_former_jax.data.masks import load_mask
from inp_former_jax.data.records import NON_ZERO, NORMAL, Record
from inp_former_jax.data.transforms import Preprocessing

SIZES = Preprocessing((28, 28), (28, 28))
# Names that a file may have on Linux.
NAMES = ["two words.png", "two\nlines.png", "Größe 部品.png", "byte\udcff.png"]


def chunk(kind: bytes, content: bytes) -> bytes:
  checksum = zlib.crc32(kind + content)
  return (
    struct.pack(">I", len(content))
    + kind
    + content
    + struct.pack(">I", checksum)
  )


def bomb(path: pathlib.Path, width: int, height: int) -> pathlib.Path:
  """A grey PNG of a few hundred bytes that claims to be large."""
  header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
  path.write_bytes(
    b"\x89PNG\r\n\x1a\n"
    + chunk(b"IHDR", header)
    + chunk(b"IDAT", zlib.compress(bytes(width + 1)))
    + chunk(b"IEND", b"")
  )
  return path


def frames(path: pathlib.Path, number: int, **options) -> pathlib.Path:
  colours = [Image.new("RGB", (30, 30), (60 * i, 9, 9)) for i in range(number)]
  colours[0].save(path, save_all=True, append_images=colours[1:], **options)
  return path


def trained_on(*paths) -> np.ndarray:
  """A batch of the images, by the loader that training uses."""
  records = [Record(path, "part", NORMAL, "good") for path in paths]
  batches = loader.training_batches(
    records, SIZES, batch_size=len(records), seed=0, num_threads=2
  )
  try:
    return next(batches)["image"]
  finally:
    batches.close()


def evaluated_on(path) -> np.ndarray:
  records = [Record(path, "part", NORMAL, "good")]
  (batch,) = loader.evaluation_batches(
    records, SIZES, batch_size=1, evaluation_size=16, num_threads=2
  )
  return batch["image"]


def refused(path) -> str:
  """The error of a file, which must be the same everywhere and in a line."""
  messages = set()
  for read in (
    lambda: transforms.load_image(path, SIZES),
    lambda: load_mask([path], SIZES, 16),
    lambda: load_mask([path], SIZES, 16, values=NON_ZERO),
    lambda: trained_on(path),
    lambda: evaluated_on(path),
  ):
    with pytest.raises(DataError) as caught:
      read()
    messages.add(str(caught.value))
  (message,) = messages
  assert message.isprintable()
  return message


def test_a_decompression_bomb_is_refused_before_it_is_decoded(tmp_path):
  path = bomb(tmp_path / "bomb.png", 20_000, 20_000)
  message = refused(path)
  assert str(path) in message
  assert "400000000 pixels" in message
  assert f"limit of {2 * Image.MAX_IMAGE_PIXELS} pixels" in message
  assert "raise the limit" in message
  path = bomb(tmp_path / "bomb.png", 13_000, 13_000)  # below Pillow's limit
  assert "169000000 pixels) exceeds limit of 128000000" in refused(path)


def test_the_limit_is_that_of_pillow_at_the_time(tmp_path, monkeypatch):
  path = tmp_path / "a.png"
  Image.new("RGB", (40, 30)).save(path)
  monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 599)
  assert "limit of 1198 pixels" in refused(path)
  for limit in (600, None):  # 1200 pixels are twice 600
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    assert transforms.load_image(path, SIZES).shape == (28, 28, 3)


@pytest.mark.parametrize("pillow", [None, 1000])
def test_with_a_higher_limit_a_bomb_may_be_opened(
  tmp_path, monkeypatch, pillow
):
  monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", pillow)
  monkeypatch.setenv("INP_FORMER_JAX_MAX_PIXELS", "400_000_000")
  path = bomb(tmp_path / "bomb.png", 20_000, 20_000)
  with image_files.open_image_file(path) as image:
    assert image.size == (20_000, 20_000)


def test_a_line_scan_is_read_without_a_warning(tmp_path):
  # More than MAX_IMAGE_PIXELS, less than twice that; warnings are errors here.
  path = bomb(tmp_path / "wide.png", 20_000, 5_000)
  with image_files.open_image_file(path) as image:
    assert image.size == (20_000, 5_000)


def test_no_warning_with_python_w_error_and_many_threads(tmp_path):
  path = bomb(tmp_path / "wide.png", 20_000, 5_000)
  program = (
    "import sys, threading\n"
    "from inp_former_jax.data.image_files import open_image_file\n"
    "def work():\n"
    "  for _ in range(50):\n"
    "    open_image_file(sys.argv[1]).close()\n"
    "    done.append(1)\n"
    "done = []\n"
    "threads = [threading.Thread(target=work) for _ in range(8)]\n"
    "for t in threads: t.start()\n"
    "for t in threads: t.join()\n"
    "print(len(done))\n"
  )
  done = subprocess.run(
    [sys.executable, "-c", program, str(path)],
    env=os.environ | {"PYTHONWARNINGS": "error"},
    capture_output=True,
    text=True,
  )
  assert done.stdout == "400\n", done.stderr
  assert "Warning" not in done.stderr


def test_the_filters_of_the_caller_are_kept(tmp_path):
  path = bomb(tmp_path / "wide.png", 20_000, 5_000)
  for _ in range(3):
    image_files.open_image_file(path).close()
  entry = ("ignore", None, Image.DecompressionBombWarning, None, 0)
  assert warnings.filters.count(entry) == 1
  with pytest.raises(UserWarning, match="still an error"):
    warnings.warn("still an error", stacklevel=1)


def test_20000_pixels_wide_are_read(tmp_path):
  row = np.linspace(0, 255, 20_000).astype(np.uint8)
  path = tmp_path / "wide.png"
  Image.fromarray(np.stack([row] * 40)).save(path)
  image = transforms.load_image(path, SIZES)
  assert image[0, 0, 0] < 10 and image[0, -1, 0] > 245
  np.testing.assert_array_equal(trained_on(path)[0], image)
  np.testing.assert_array_equal(evaluated_on(path)[0], image)


def test_one_pixel_is_read(tmp_path):
  path = tmp_path / "dot.png"
  Image.new("RGB", (1, 1), (9, 8, 7)).save(path)
  image = transforms.load_image(path, SIZES)
  assert (image == (9, 8, 7)).all()


@pytest.mark.parametrize(
  "name, options",
  [
    ("a.gif", {"duration": 50}),
    ("a.png", {"duration": 50}),
    ("a.tif", {}),
    ("a.webp", {"duration": 50, "lossless": True}),
    ("gif named.png", {"format": "GIF"}),
  ],
)
def test_several_frames_are_refused(tmp_path, name, options):
  path = frames(tmp_path / name, 3, **options)
  message = refused(path)
  assert str(path) in message and "3 frames" in message
  assert "Save each frame" in message
  # A single frame is an image like any other.
  assert transforms.load_image(frames(path, 1, **options), SIZES).shape


def test_mpo_is_read_by_its_first_picture(tmp_path):
  path = frames(tmp_path / "stereo.jpg", 2, format="MPO")
  with Image.open(path) as image:
    assert image.format == "MPO" and image.n_frames == 2
  assert (
    np.abs(transforms.load_image(path, SIZES)[0, 0] - [0.0, 9, 9]).max() < 4
  )


def special(kind: str, path: pathlib.Path) -> None:
  if kind == "a named pipe":
    os.mkfifo(path)
  elif kind == "a folder":
    path.mkdir()
  elif kind == "a device":
    path.symlink_to("/dev/zero")
  else:
    with socket.socket(socket.AF_UNIX) as server:
      server.bind(str(path))


@pytest.mark.parametrize(
  "kind", ["a named pipe", "a folder", "a device", "a socket"]
)
def test_what_is_no_file_is_refused_before_it_is_opened(
  tmp_path, kind, monkeypatch
):
  monkeypatch.chdir(tmp_path)  # a socket's path must be short
  path = pathlib.Path("x.png")
  special(kind, path)
  # Opening a FIFO to which nobody writes would never return.
  reader = threading.Thread(
    target=lambda: messages.append(refused(path)), daemon=True
  )
  messages = []
  reader.start()
  reader.join(60)
  assert messages and f"x.png is {kind}" in messages[0]
  assert "expected an image file" in messages[0]


@pytest.mark.parametrize(
  "content, words",
  [
    (b"", "cannot identify"),
    (b"not an image\n", "cannot identify"),
    (b"\x89PNG\r\n\x1a\n", "cannot be read"),
    (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "cannot identify"),
  ],
)
def test_what_is_no_image_is_refused(tmp_path, content, words):
  path = tmp_path / "a.png"
  path.write_bytes(content)
  message = refused(path)
  assert str(path) in message and words in message


@pytest.mark.parametrize("format_", ["EPS", "PDF", "PPM", "TGA", "ICNS"])
def test_other_formats_are_not_even_opened(tmp_path, monkeypatch, format_):
  ghostscript = tmp_path / "bin" / "gs"
  ghostscript.parent.mkdir()
  ghostscript.write_text(f"#!/bin/sh\ntouch {tmp_path / 'started'}\n")
  ghostscript.chmod(0o755)
  monkeypatch.setenv("PATH", str(ghostscript.parent), prepend=os.pathsep)
  path = tmp_path / "x.png"
  Image.new("RGB", (16, 16)).save(path, format=format_)
  assert "cannot identify image file" in refused(path)
  assert not (tmp_path / "started").exists()


def test_huge_text_in_a_png_is_refused(tmp_path, monkeypatch):
  text = PngImagePlugin.PngInfo()
  text.add_text("comment", "x" * 5_000_000, zip=True)
  path = tmp_path / "a.png"
  Image.new("L", (30, 30)).save(path, pnginfo=text)
  assert path.stat().st_size < 20_000
  message = refused(path)
  assert str(path) in message and "MAX_TEXT_CHUNK" in message


@pytest.mark.parametrize("name", NAMES)
def test_any_name_is_read_and_reported(tmp_path, name):
  path = tmp_path / name
  Image.new("RGB", (30, 20), (9, 8, 7)).save(path)
  assert image_files.find_images(tmp_path) == [path]
  assert (transforms.load_image(path, SIZES) == (9, 8, 7)).all()
  if name.isprintable():
    assert (trained_on(path) == (9, 8, 7)).all()
    assert (evaluated_on(path) == (9, 8, 7)).all()
  else:  # such names are for answers only; what is trained on has others
    with pytest.raises(DataError, match="name of an image is "):
      trained_on(path)
  path.write_bytes(path.read_bytes()[:40])
  with pytest.raises(DataError) as caught:
    transforms.load_image(path, SIZES)
  message = str(caught.value)  # in one printable line
  assert message.isprintable()
  assert image_files.printable(path) in message
  message.encode()


def test_a_printable_name_is_left_as_it_is():
  assert image_files.printable("/a b/é.png") == "/a b/é.png"
  assert image_files.printable("/a\nb.png") == r"'/a\nb.png'"
  assert image_files.printable(b"/a\xff.png") == r"'/a\udcff.png'"
