"""Images in memory: the same pixels as those of their files."""

import numpy as np
import pytest
from PIL import Image

from inp_former_jax.data import transforms
from inp_former_jax.data.arrays import from_array


@pytest.fixture
def pixels():
  return np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)


def of_file(array, tmp_path) -> np.ndarray:
  path = tmp_path / "a.png"
  Image.fromarray(array).save(path)
  return np.asarray(transforms.decode(path, "RGB"))


def test_arrays_equal_their_files(pixels, tmp_path):
  deep = np.arange(600, dtype=np.uint16).reshape(20, 30) * 109
  alpha = np.concatenate([pixels, pixels[..., :1]], axis=-1)
  for array in (pixels, pixels[..., 0], deep, alpha):
    image = from_array(array)
    assert image.mode == "RGB" and image.size == (30, 20)
    np.testing.assert_array_equal(image, of_file(array, tmp_path))


def test_one_channel_and_any_memory_order(pixels):
  grey = np.asarray(from_array(pixels[..., :1]))
  np.testing.assert_array_equal(grey, from_array(pixels[..., 0]))
  for view in (pixels[::-1, ::2], np.asfortranarray(pixels)):
    np.testing.assert_array_equal(from_array(view), view)


def test_the_array_is_copied(pixels):
  before = pixels.copy()
  image = from_array(pixels)
  pixels[:] = 0
  np.testing.assert_array_equal(image, before)


def test_pillow_images_are_converted_as_files_are(pixels):
  image = Image.fromarray(pixels)
  np.testing.assert_array_equal(from_array(image), pixels)
  deep = Image.fromarray(np.full((4, 4), 0x8001, np.uint16))
  assert (np.asarray(from_array(deep)) == 0x80).all()
  assert from_array(image.convert("CMYK")).mode == "RGB"
  with pytest.raises(ValueError, match="`images` .*floats of unknown range"):
    from_array(Image.new("F", (4, 4)))


@pytest.mark.parametrize(
  "array, finding, remedy",
  [
    (np.zeros((4, 4, 3), np.float32), "(4, 4, 3) of float32", "255 * image"),
    (np.zeros((4, 4), bool), "(4, 4) of bool", "255 * image"),
    (np.zeros((3, 8, 8), np.uint8), "(3, 8, 8)", "transpose(1, 2, 0)"),
    (np.zeros((2, 8, 8, 3), np.uint8), "(2, 8, 8, 3)", "one by one"),
    (np.zeros((0, 8, 3), np.uint8), "(0, 8, 3)", "no pixels"),
    (np.zeros((8, 8, 2), np.uint8), "(8, 8, 2)", "axis of one channel"),
    (np.zeros((8, 8, 3), np.uint16), "uint16", "8 bits per channel"),
    (np.zeros((8, 8), np.int64), "int64", "8 bits per channel"),
    (np.zeros(8, np.uint8), "(8,)", "8 bits per channel"),
    ([[1, 2]], "a list", "np.asarray"),
  ],
)
def test_anything_else_is_refused(array, finding, remedy):
  with pytest.raises(ValueError) as caught:
    from_array(array)
  message = str(caught.value)
  assert "`images`" in message and "expected a Pillow image" in message
  assert finding in message and remedy in message
