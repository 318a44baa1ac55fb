"""Images whose pixels would take too much memory."""

import threading
import time

import pytest
from PIL import Image

from inp_former_jax.data import image_files, pixel_limits
from inp_former_jax.data.errors import DataError

LIMIT = pixel_limits.MAX_PIXELS


class Sized:
  """An image of which only the size is known."""

  def __init__(self, pixels: int):
    self.width, self.height = pixels, 1


@pytest.mark.parametrize(
  "together, size",
  [(1, LIMIT), (1, LIMIT // 2 + 1), (2, LIMIT // 2), (4, LIMIT // 5)],
)
def test_large_images_are_decoded_one_after_the_other(together, size):
  lock, running, most = threading.Lock(), 0, 0

  def decode():
    nonlocal running, most
    with pixel_limits.decoding(Sized(size)):
      with lock:
        running += 1
        most = max(most, running)
      time.sleep(0.02)
      with lock:
        running -= 1

  threads = [threading.Thread(target=decode) for _ in range(4)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join(60)
  assert running == 0 and 1 <= most <= together


def test_an_image_beyond_the_limit_is_decoded_alone_if_it_was_allowed():
  with pixel_limits.decoding(Sized(10 * LIMIT)):
    pass


def test_an_error_while_decoding_gives_its_room_back():
  for _ in range(2):
    with pytest.raises(OSError), pixel_limits.decoding(Sized(LIMIT)):
      raise OSError


def test_the_limit_is_lowered_and_raised(tmp_path, monkeypatch):
  path = tmp_path / "a.png"
  Image.new("L", (40, 30)).save(path)
  monkeypatch.setenv(pixel_limits.VARIABLE, "1_199")
  with pytest.raises(DataError, match="limit of 1199 pixels") as caught:
    image_files.open_image_file(path)
  assert str(path) in str(caught.value)
  assert pixel_limits.VARIABLE in str(caught.value)
  monkeypatch.setenv(pixel_limits.VARIABLE, "1200")
  image_files.open_image_file(path).close()


@pytest.mark.parametrize("text", ["many", "0", "-5", "1e9", "²"])
def test_a_limit_that_is_no_number(tmp_path, monkeypatch, text):
  monkeypatch.setenv(pixel_limits.VARIABLE, text)
  with pytest.raises(DataError, match=f"{pixel_limits.VARIABLE} is "):
    pixel_limits.max_pixels()
