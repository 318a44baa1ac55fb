"""Images are decoded in full, as short cuts would change pixels."""

import io

import numpy as np
import pytest
from PIL import Image

from inp_former_jax.data.transforms import (
  Preprocessing,
  load_image,
  resize_and_crop,
)

SIZES = Preprocessing((128, 128), (112, 112))


@pytest.fixture
def picture() -> Image.Image:
  rng = np.random.default_rng(0)
  coarse = rng.integers(0, 256, (32, 32, 3), np.uint8)
  smooth = Image.fromarray(coarse).resize((512, 512), Image.Resampling.BICUBIC)
  noise = rng.integers(-6, 7, (512, 512, 3))
  return Image.fromarray(np.clip(noise + smooth, 0, 255).astype(np.uint8))


def test_a_jpeg_is_decoded_in_full_because_a_draft_differs(picture, tmp_path):
  path = tmp_path / "a.jpg"
  picture.save(path, quality=95)
  with Image.open(path) as image:
    expected = np.asarray(resize_and_crop(image.convert("RGB"), SIZES))
  np.testing.assert_array_equal(load_image(path, SIZES), expected)
  with Image.open(path) as image:
    image.draft("RGB", (128, 128))
    assert image.size < (512, 512)  # it is what would be faster
    drafted = np.asarray(resize_and_crop(image.convert("RGB"), SIZES))
  assert (drafted != expected).mean() > 0.1


def test_a_png_gives_the_pixels_that_were_saved(picture, tmp_path):
  path = tmp_path / "a.png"
  picture.save(path)
  expected = np.asarray(resize_and_crop(picture, SIZES))
  np.testing.assert_array_equal(load_image(path, SIZES), expected)
  assert np.array_equal(
    np.asarray(Image.open(io.BytesIO(path.read_bytes()))), np.asarray(picture)
  )
