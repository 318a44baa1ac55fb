"""The model's map at the image's own pixels."""

import numpy as np
import pytest
from PIL import Image

from inp_former_jax.data.transforms import Preprocessing, resize_and_crop
from inp_former_jax.inference.framing import geometry

WHOLE = Preprocessing((56, 56), (56, 56))
CROPPED = Preprocessing((64, 64), (56, 56))


def test_a_map_of_the_images_size_stays_as_it_is():
  anomaly_map = np.random.default_rng(0).random((40, 40), np.float32)
  found = geometry.map_at_image_size(anomaly_map, (40, 40), WHOLE)
  np.testing.assert_allclose(found, anomaly_map, atol=1e-6)


@pytest.mark.parametrize("size", [(80, 120), (256, 64), (41, 333)])
def test_enlarged_as_pillow_does(size):
  anomaly_map = np.random.default_rng(0).random((32, 32), np.float32)
  found = geometry.map_at_image_size(anomaly_map, size, WHOLE)
  picture = Image.fromarray(anomaly_map)
  expected = picture.resize(size[::-1], Image.Resampling.BILINEAR)
  assert found.dtype == np.float32
  np.testing.assert_allclose(found, np.asarray(expected), atol=1e-5)


def test_a_ramp_lands_where_the_crop_was():
  """Columns of the image know their own position after the crop."""
  width = 640
  ramp = np.tile(np.linspace(0, 1, width, dtype=np.float32), (10, 1))
  cut = resize_and_crop(Image.fromarray(ramp), CROPPED)
  found = geometry.map_at_image_size(np.asarray(cut), (10, width), CROPPED)
  seen = ~np.isnan(found[5])
  inner = np.flatnonzero(seen)[8:-8]  # bilinear interpolation ends flat
  np.testing.assert_allclose(found[5, inner], ramp[5, inner], atol=2e-3)


@pytest.mark.parametrize("size", [(64, 64), (640, 320), (100, 77)])
def test_what_the_crop_leaves_out_is_nan(size):
  found = geometry.map_at_image_size(np.ones((32, 32)), size, CROPPED)
  left, upper, right, lower = geometry.field_of_view(size, CROPPED)
  rows, columns = (np.arange(side) + 0.5 for side in size)
  inside = np.outer(
    (rows >= upper) & (rows <= lower), (columns >= left) & (columns <= right)
  )
  np.testing.assert_array_equal(~np.isnan(found), inside)
  share = np.isnan(found).mean()
  assert abs(share - geometry.uninspected_share(CROPPED)) < 0.03


@pytest.mark.parametrize("size", [(1, 1), (1, 20_000), (3, 2)])
def test_tiny_and_wide_images_have_a_map(size):
  found = geometry.map_at_image_size(np.ones((32, 32)), size, CROPPED)
  assert found.shape == size and (~np.isnan(found)).any()


@pytest.mark.parametrize(
  "size, crop",
  [((100, 100), (56, 56)), ((100, 400), (28, 112)), ((1, 900), (14, 1680))],
)
def test_aspect_ratio_is_kept_in_whole_patches(size, crop):
  found = geometry.with_aspect_of(size, CROPPED, 14)
  assert found.crop == crop
  assert found.resize == tuple(round(side * 64 / 56) for side in crop)
