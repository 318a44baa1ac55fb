"""Scoring: each step against a naive one, and their composition."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage

from inp_former_jax.inference import scoring


@pytest.fixture(autouse=True)
def highest_precision():
  with jax.default_matmul_precision("highest"):
    yield


def naive_bilinear(image, height, width, align_corners):
  """Pixel by pixel, from the definition."""

  def source(i, size_in, size_out):
    if align_corners:
      return i * (size_in - 1) / (size_out - 1) if size_out > 1 else 0.0
    return max((i + 0.5) * size_in / size_out - 0.5, 0.0)

  rows, columns = image.shape
  result = np.zeros((height, width))
  for i in range(height):
    y = source(i, rows, height)
    top, bottom = int(y), min(int(y) + 1, rows - 1)
    for j in range(width):
      x = source(j, columns, width)
      left, right = int(x), min(int(x) + 1, columns - 1)
      upper = (1 - x % 1) * image[top, left] + x % 1 * image[top, right]
      lower = (1 - x % 1) * image[bottom, left] + x % 1 * image[bottom, right]
      result[i, j] = (1 - y % 1) * upper + y % 1 * lower
  return result


def smooth(image):
  """5x5 Gaussian of sigma 4 with zero padding, as one 2-D kernel."""
  y, x = np.mgrid[-2:3, -2:3]
  kernel = np.exp(-(x**2 + y**2) / (2 * 4.0**2))
  return scipy.ndimage.correlate(image, kernel / kernel.sum(), mode="constant")


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize(
  "shape, size",
  [
    ((3, 5), (14, 9)),  # up
    ((14, 9), (6, 4)),  # down
    ((7, 7), (7, 7)),
    ((1, 4), (5, 1)),  # one row in, one column out
    ((2, 3), (11, 30)),
  ],
)
def test_bilinear_matrix_equals_a_loop_over_pixels(shape, size, align_corners):
  image = np.random.default_rng(0).normal(size=shape)
  rows, columns = (
    scoring.bilinear_matrix(a, b, align_corners=align_corners)
    for a, b in zip(shape, size, strict=True)
  )
  expected = naive_bilinear(image, *size, align_corners)
  np.testing.assert_allclose(rows @ image @ columns.T, expected, atol=1e-12)


@pytest.mark.parametrize("align_corners", [True, False])
def test_bilinear_matrix_has_rows_that_sum_to_one(align_corners):
  for size_in, size_out in ((28, 392), (392, 256), (16, 224), (1, 3)):
    matrix = scoring.bilinear_matrix(
      size_in, size_out, align_corners=align_corners
    )
    assert matrix.shape == (size_out, size_in)
    assert matrix.min() >= 0
    np.testing.assert_allclose(matrix.sum(axis=1), 1, atol=1e-12)


def test_bilinear_matrix_to_the_same_size_is_the_identity():
  for align_corners in (True, False):
    matrix = scoring.bilinear_matrix(9, 9, align_corners=align_corners)
    np.testing.assert_allclose(matrix, np.eye(9), atol=1e-12)


def test_aligned_corners_and_half_pixel_centres_differ():
  aligned, half_pixel = (
    scoring.bilinear_matrix(4, 56, align_corners=a) for a in (True, False)
  )
  assert np.abs(aligned - half_pixel).max() > 0.1


@pytest.mark.parametrize("size", [3, 5, 16, 33])
def test_gaussian_matrix_equals_scipys_correlation(size):
  x = np.random.default_rng(0).normal(size=size)
  kernel = np.exp(-(np.arange(-2, 3) ** 2) / 32)
  expected = scipy.ndimage.correlate1d(
    x, kernel / kernel.sum(), mode="constant"
  )
  np.testing.assert_allclose(
    scoring.gaussian_matrix(size) @ x, expected, atol=1e-12
  )


@pytest.mark.parametrize("grid", [(4, 4), (3, 5)])
def test_anomaly_map_equals_its_three_steps(grid):
  crop, size = (14 * grid[0], 14 * grid[1]), 24
  distance = np.random.default_rng(0).uniform(0, 2, (2, *grid))
  maps = scoring.anomaly_map(
    jnp.asarray(distance, jnp.float32).reshape(2, -1), grid, crop, size
  )
  assert maps.shape == (2, size, size) and maps.dtype == jnp.float32
  for ours, d in zip(maps, distance, strict=True):
    upsampled = naive_bilinear(d, *crop, align_corners=True)
    resized = naive_bilinear(upsampled, size, size, align_corners=False)
    # float32 against float64, values up to 2.
    np.testing.assert_allclose(ours, smooth(resized), atol=2e-6)


def test_full_anomaly_map_equals_the_first_step():
  grid, crop = (3, 5), (42, 70)
  distance = np.random.default_rng(0).uniform(0, 2, grid)
  full = scoring.full_anomaly_map(
    jnp.asarray(distance, jnp.float32).reshape(1, -1), grid, crop
  )
  expected = naive_bilinear(distance, *crop, align_corners=True)
  np.testing.assert_allclose(full[0], expected, atol=1e-6)
  corners = np.asarray(full[0])[np.ix_([0, -1], [0, -1])]
  np.testing.assert_allclose(corners, distance[::2, ::4], atol=1e-6)


def test_map_is_256_wide_by_default():
  maps = scoring.anomaly_map(jnp.ones((1, 9)), (3, 3), (42, 42))
  assert maps.shape == (1, 256, 256)


def test_anomaly_map_is_linear():
  rng = np.random.default_rng(0)
  a, b = (jnp.asarray(rng.uniform(0, 1, (2, 15)), "f") for _ in range(2))
  to_map = lambda d: scoring.anomaly_map(d, (3, 5), (42, 70), 32)  # noqa: E731
  np.testing.assert_allclose(
    to_map(0.25 * a + 3 * b), 0.25 * to_map(a) + 3 * to_map(b), atol=2e-6
  )


def test_constant_distance_stays_constant_but_at_the_border():
  constant = jnp.full((1, 16), 0.7)
  maps = np.asarray(scoring.anomaly_map(constant, (4, 4), (56, 56), 32))[0]
  np.testing.assert_allclose(maps[2:-2, 2:-2], 0.7, atol=1e-6)
  # Zero padding takes two fifths of a Gaussian that is nearly flat.
  kernel = np.exp(-(np.arange(-2, 3) ** 2) / 32)
  outside = kernel[:2].sum() / kernel.sum()
  np.testing.assert_allclose(maps[0, 2:-2], 0.7 * (1 - outside), atol=1e-6)
  assert maps[0, 0] == pytest.approx(0.7 * (1 - outside) ** 2, abs=1e-6)


def test_rows_and_columns_are_not_mixed_up():
  distance = np.random.default_rng(0).uniform(0, 1, (3, 5)).astype("f")
  wide = scoring.anomaly_map(distance.reshape(1, -1), (3, 5), (42, 70), 20)
  tall = scoring.anomaly_map(distance.T.reshape(1, -1), (5, 3), (70, 42), 20)
  np.testing.assert_allclose(wide[0], tall[0].T, atol=1e-6)
  one_row = np.zeros((3, 5), "f")
  one_row[2] = 1
  maps = scoring.anomaly_map(one_row.reshape(1, -1), (3, 5), (42, 70), 20)[0]
  assert maps[-4, 2:-2].min() > 0.6 and maps[3].max() == 0


def test_maps_are_float32_even_of_bfloat16_distances():
  distance = jnp.linspace(0, 2, 9).astype(jnp.bfloat16).reshape(1, 9)
  maps = scoring.anomaly_map(distance, (3, 3), (42, 42), 16)
  assert maps.dtype == jnp.float32
  exact = scoring.anomaly_map(distance.astype("f"), (3, 3), (42, 42), 16)
  np.testing.assert_array_equal(maps, exact)


def test_grid_of_another_size_is_refused():
  with pytest.raises((ValueError, TypeError)):
    scoring.anomaly_map(jnp.ones((1, 10)), (3, 3), (42, 42), 16)


@pytest.mark.parametrize("fraction", [0.01, 0.1, 0.5, 1.0])
def test_image_score_is_the_mean_of_the_highest_pixels(fraction):
  maps = np.random.default_rng(0).uniform(0, 2, (3, 20, 31)).astype("f")
  count = int(fraction * 20 * 31)
  expected = np.sort(maps.reshape(3, -1))[:, -count:].mean(axis=1)
  scores = scoring.image_score(jnp.asarray(maps), fraction)
  assert scores.shape == (3,)
  np.testing.assert_allclose(scores, expected, rtol=1e-6)


def test_image_score_takes_655_pixels_of_the_default_map():
  flat = np.zeros(256 * 256, "f")
  flat[:655] = 1.0
  maps = jnp.asarray(np.random.default_rng(0).permutation(flat))
  assert scoring.image_score(maps.reshape(1, 256, 256))[0] == 1
  maps = maps.at[jnp.argmax(maps)].set(0.0)
  score = scoring.image_score(maps.reshape(1, 256, 256))[0]
  assert score == pytest.approx(654 / 655)


def test_image_score_takes_at_least_one_pixel():
  maps = jnp.asarray([[[0.1, 0.9], [0.3, 0.2]]])
  assert scoring.image_score(maps, 0.01)[0] == pytest.approx(0.9)
  assert scoring.image_score(maps, 0.0)[0] == pytest.approx(0.9)


def test_group_distance_runs_from_identical_to_opposite():
  rng = np.random.default_rng(0)
  g = [jnp.asarray(rng.normal(size=(2, 6, 8)), "f") for _ in range(2)]
  opposite = [-x for x in g]
  np.testing.assert_allclose(scoring.group_distance(g, g), 0, atol=1e-6)
  np.testing.assert_allclose(scoring.group_distance(g, opposite), 2, atol=1e-6)
  mixed = scoring.group_distance(g, [g[0], opposite[1]])
  np.testing.assert_allclose(mixed, np.ones((2, 6)), atol=1e-6)
  other = [jnp.asarray(rng.normal(size=(2, 6, 8)), "f") for _ in range(2)]
  distance = scoring.group_distance(g, other)
  assert distance.min() > 0 and distance.max() < 2
  scaled = scoring.group_distance(g, [100 * x for x in other])
  np.testing.assert_allclose(scaled, distance, atol=1e-6)


def test_group_distance_is_the_mean_over_groups():
  rng = np.random.default_rng(0)
  g, h = (rng.normal(size=(2, 1, 4, 8)) for _ in range(2))
  lengths = np.linalg.norm(g, axis=-1) * np.linalg.norm(h, axis=-1)
  expected = (1 - (g * h).sum(-1) / lengths).mean(axis=0)
  ours = scoring.group_distance(list(jnp.asarray(g)), list(jnp.asarray(h)))
  np.testing.assert_allclose(ours, expected, atol=1e-6)
  with pytest.raises(ValueError):
    scoring.group_distance(list(jnp.asarray(g)), [jnp.asarray(h[0])])
