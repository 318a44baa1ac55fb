"""Metrics: parity with the original, exact against streaming, properties."""

import pathlib

import numpy as np
import pytest
import scipy.ndimage

from inp_former_jax.evaluation import metrics

GOLDENS = pathlib.Path(__file__).parents[1] / "goldens" / "metrics.npz"
PIXEL_METRICS = ("pixel_auroc", "pixel_ap", "pixel_f1max", "pixel_aupro")
IMAGE_METRICS = ("image_auroc", "image_ap", "image_f1max")


@pytest.fixture(scope="module")
def golden():
  with np.load(GOLDENS) as arrays:
    return dict(arrays)


@pytest.fixture(scope="module")
def realistic():
  """32 maps crowded in [0.02, 0.4], with over 100,000 defective pixels."""
  random = np.random.default_rng(0)
  noise = scipy.ndimage.gaussian_filter(
    random.standard_normal((32, 256, 256)), (0, 4, 4)
  )
  maps = 0.06 + 0.012 * noise / noise.std()
  masks = np.zeros(maps.shape, bool)
  y, x = np.mgrid[:256, :256]
  for i in range(24):
    for _ in range(random.integers(1, 4)):
      centre_y, centre_x = random.integers(30, 226, 2)
      height, width = random.uniform(12, 50, 2)
      distance = ((y - centre_y) / height) ** 2 + ((x - centre_x) / width) ** 2
      masks[i] |= distance < 1
      maps[i] += random.uniform(0.02, 0.15) * np.exp(-distance / 2)
  return maps.clip(0, 2).astype(np.float32), masks


def streamed(maps, masks, batch=16, **kwargs):
  histograms = metrics.PixelHistograms(**kwargs)
  for i in range(0, len(maps), batch):
    histograms.add(maps[i : i + batch], masks[i : i + batch])
  return histograms


def slow_aupro(maps, masks, num_thresholds, max_fpr=0.3):
  """AUPRO by its definition: a loop over thresholds and over regions."""
  maps = maps.astype(np.float64)  # thresholds rounded to float32 cost 6e-7
  regions = []
  for image, mask in zip(maps, masks, strict=True):
    labels, count = scipy.ndimage.label(mask, np.ones((3, 3)))
    regions += [image[labels == i] for i in range(1, count + 1)]
  normal = maps[masks == 0]
  low, high = float(maps.min()), float(maps.max())
  fpr, overlap = [], []
  for k in range(num_thresholds):
    threshold = low + (high - low) * k / num_thresholds
    fpr.append(np.mean(normal > threshold))
    overlap.append(np.mean([np.mean(r > threshold) for r in regions]))
  fpr, overlap = np.array(fpr)[::-1], np.array(overlap)[::-1]
  inside = fpr <= max_fpr
  x = np.append(fpr[inside], max_fpr)
  y = np.append(overlap[inside], np.interp(max_fpr, fpr, overlap))
  return np.trapezoid(y, x) / max_fpr


# Parity with the original.


def test_image_metrics_match_original(golden):
  found = metrics.image_metrics(golden["labels"], golden["image_scores"])
  assert tuple(found) == IMAGE_METRICS
  # The original adds 1e-7 to the denominator of F1: 5e-8 here.
  for name in ("auroc", "ap", "f1max"):
    np.testing.assert_allclose(
      found[f"image_{name}"], golden[f"i_{name}"], rtol=0, atol=1e-6
    )


def test_exact_pixel_metrics_match_original(golden):
  found = metrics.exact_pixel_metrics(golden["anomaly_maps"], golden["masks"])
  assert tuple(found) == PIXEL_METRICS
  for name in ("auroc", "ap", "f1max"):
    np.testing.assert_allclose(
      found[f"pixel_{name}"], golden[f"p_{name}"], rtol=0, atol=1e-6
    )
  # The original stops at 5,000 thresholds: 2.5e-6 from all of them.
  np.testing.assert_allclose(
    found["pixel_aupro"], golden["aupro_exact"], rtol=0, atol=1e-5
  )


def test_aupro_at_5000_thresholds_matches_original(golden):
  found = metrics.aupro(
    golden["anomaly_maps"], golden["masks"], num_thresholds=5000
  )
  np.testing.assert_allclose(found, golden["aupro_exact"], rtol=0, atol=1e-9)


def test_aupro_at_200_thresholds_matches_adeval(golden):
  found = metrics.aupro(
    golden["anomaly_maps"], golden["masks"], num_thresholds=200
  )
  # ADEval rounds its bin edges to float32; with 200 strips that moves nothing.
  np.testing.assert_allclose(found, golden["adeval_aupro"], rtol=0, atol=1e-6)


@pytest.mark.parametrize("num_thresholds", [200, 5000])
def test_aupro_matches_its_definition(golden, num_thresholds):
  maps, masks = golden["anomaly_maps"], golden["masks"]
  slow = slow_aupro(maps, masks, num_thresholds)
  np.testing.assert_allclose(
    metrics.aupro(maps, masks, num_thresholds=num_thresholds),
    slow,
    rtol=0,
    atol=1e-9,
  )
  if num_thresholds == 5000:
    np.testing.assert_allclose(slow, golden["aupro_exact"], rtol=0, atol=1e-9)


# Streaming against exact.


@pytest.mark.parametrize("source", ["golden", "realistic"])
def test_streaming_matches_exact(source, request):
  arrays = request.getfixturevalue(source)
  if source == "golden":
    arrays = arrays["anomaly_maps"], arrays["masks"]
  found = streamed(*arrays).metrics()
  exact = metrics.exact_pixel_metrics(*arrays)
  assert tuple(found) == PIXEL_METRICS
  for name in PIXEL_METRICS:
    np.testing.assert_allclose(found[name], exact[name], rtol=0, atol=1e-5)


def test_coarse_histograms_lose_only_f1max(realistic):
  found = streamed(*realistic, num_bins=2**16).metrics()
  exact = metrics.exact_pixel_metrics(*realistic)
  for name in PIXEL_METRICS:
    atol = 2e-4 if name == "pixel_f1max" else 1e-5
    np.testing.assert_allclose(found[name], exact[name], rtol=0, atol=atol)


def test_batches_in_any_order_give_the_same_bits(realistic):
  maps, masks = realistic[0][8:24], realistic[1][8:24]
  once = streamed(maps, masks, num_bins=2**14).to_array()
  order = np.random.default_rng(1).permutation(len(maps))
  for batch in (1, 5):
    again = streamed(maps[order], masks[order], batch, num_bins=2**14)
    np.testing.assert_array_equal(again.to_array(), once)


def test_merge_is_associative_and_leaves_its_parts(golden):
  maps, masks = golden["anomaly_maps"], golden["masks"]
  a, b, c = (
    streamed(maps[i::3], masks[i::3], num_bins=2**12) for i in range(3)
  )
  before = a.to_array()
  whole = streamed(maps, masks, num_bins=2**12).to_array()
  for merged in ((a + b) + c, a + (b + c), c + a + b):
    np.testing.assert_array_equal(merged.to_array(), whole)
  np.testing.assert_array_equal(a.to_array(), before)


def test_arrays_survive_a_host_sum_as_32_bit_words(golden):
  histograms = streamed(golden["anomaly_maps"], golden["masks"])
  words = histograms.to_array().view(np.uint32)
  back = metrics.PixelHistograms.from_array(words.view(np.int64))
  assert back.metrics() == histograms.metrics()


def test_histograms_refuse_what_does_not_fit():
  histograms = metrics.PixelHistograms(8)
  with pytest.raises(ValueError, match="8 and 16 bins"):
    histograms + metrics.PixelHistograms(16)
  with pytest.raises(ValueError, match="num_bins"):
    metrics.PixelHistograms.from_array(np.zeros((3, 8), np.float32))


# Properties.


def test_exact_metrics_ignore_a_monotone_transform(golden):
  maps, masks = golden["anomaly_maps"].astype(np.float64), golden["masks"]
  plain = metrics.exact_pixel_metrics(maps, masks)
  assert metrics.exact_pixel_metrics(np.exp(3 * maps) - 7, masks) == plain


@pytest.fixture
def two_regions():
  """A region of 64 pixels and one of 4 in one image, and a good image."""
  masks = np.zeros((2, 16, 16), bool)
  masks[0, :8, :8] = True
  masks[0, 12:14, 12:14] = True
  return masks


def both_ways(maps, masks):
  histograms = streamed(maps, masks, num_bins=2**12)
  return metrics.exact_pixel_metrics(maps, masks), histograms.metrics()


def test_perfect_maps_score_one(two_regions):
  for found in both_ways(two_regions * 1.0, two_regions):
    assert found == pytest.approx(dict.fromkeys(PIXEL_METRICS, 1.0))


def test_inverted_maps_score_nothing(two_regions):
  for found in both_ways(1.0 - two_regions, two_regions):
    assert found["pixel_auroc"] == found["pixel_aupro"] == 0
    assert found["pixel_ap"] < 0.15  # 68 of 512 pixels


def test_constant_maps_score_chance(two_regions):
  share = two_regions.mean()
  for found in both_ways(np.full(two_regions.shape, 0.5), two_regions):
    assert found["pixel_auroc"] == 0.5
    assert found["pixel_aupro"] == pytest.approx(0.15)  # of the diagonal
    assert found["pixel_ap"] == pytest.approx(share, abs=2e-3)
    assert found["pixel_f1max"] == pytest.approx(2 * share / (1 + share))


@pytest.mark.parametrize("region", [np.s_[0, :8, :8], np.s_[0, 12:14, 12:14]])
def test_regions_weigh_the_same_whatever_their_area(two_regions, region):
  maps = np.zeros(two_regions.shape)
  maps[region] = 1
  # Half of the overlap at FPR 0, then a straight line to (1, 1).
  for found in both_ways(maps, two_regions):
    assert found["pixel_aupro"] == pytest.approx(0.5 + 0.5 * 0.3 / 2)


def test_diagonal_neighbours_form_one_region():
  masks = np.zeros((1, 8, 8), bool)
  masks[0, [2, 3], [2, 3]] = True  # one region of two pixels
  masks[0, 6, 6] = True
  maps = np.zeros(masks.shape)
  maps[0, 6, 6] = 1
  for found in both_ways(maps, masks):
    assert found["pixel_aupro"] == pytest.approx(0.5 + 0.5 * 0.3 / 2)


def test_regions_end_with_their_image():
  masks = np.ones((2, 4, 4), bool)
  masks[1, 2:] = False
  histograms = streamed(masks * 1.0, masks, num_bins=16)
  assert histograms.regions.sum() == 2 * metrics.REGION_UNIT


# Degenerate and damaged inputs; warnings are errors under pytest here.


@pytest.mark.parametrize("value", [False, True])
def test_one_class_only_is_nan(value):
  maps = np.random.default_rng(0).random((2, 8, 8))
  for found in both_ways(maps, np.full(maps.shape, value)):
    assert tuple(found) == PIXEL_METRICS
    assert np.isnan(list(found.values())).all()
  found = metrics.image_metrics(np.full(5, value), np.arange(5.0))
  assert tuple(found) == IMAGE_METRICS
  assert np.isnan(list(found.values())).all()


def test_nothing_at_all_is_nan():
  empty = np.zeros((0, 8, 8))
  for found in both_ways(empty, empty):
    assert np.isnan(list(found.values())).all()
  found = metrics.image_metrics(np.zeros(0), np.zeros(0))
  assert np.isnan(list(found.values())).all()


@pytest.mark.parametrize("damage", [np.nan, np.inf, -np.inf])
def test_scores_that_are_not_finite_are_refused(damage):
  maps, masks = np.zeros((1, 4, 4), np.float32), np.eye(4)[None]
  maps[0, 1, 2] = damage
  histograms = metrics.PixelHistograms(16)
  for measure in (histograms.add, metrics.exact_pixel_metrics, metrics.aupro):
    with pytest.raises(ValueError, match="1 of 16 .* not finite"):
      measure(maps, masks)
  assert not histograms.to_array().any()
  with pytest.raises(ValueError, match="not finite"):
    metrics.image_metrics(np.array([0, 1]), np.array([0.0, damage]))


def test_scores_outside_the_grid_are_clipped_or_refused():
  maps, masks = np.array([[[-1e-6, 2 + 1e-6]]], np.float32), np.ones((1, 1, 2))
  histograms = streamed(maps, masks, num_bins=4)
  np.testing.assert_array_equal(histograms.defective, [1, 0, 0, 1])
  with pytest.raises(ValueError, match=r"expected \[0, 2\]"):
    histograms.add(10 * maps, masks)


def test_half_precision_maps_are_counted():
  maps = np.array([[[0.5, 1.5]]], np.float16)
  histograms = streamed(maps, np.array([[[0, 1]]]))
  assert histograms.metrics()["pixel_auroc"] == 1


def test_shapes_must_agree():
  with pytest.raises(ValueError, match="same shape"):
    metrics.exact_pixel_metrics(np.zeros((2, 8, 8)), np.zeros((2, 4, 4)))
  with pytest.raises(ValueError, match="max_fpr"):
    metrics.aupro(np.zeros((1, 2, 2)), np.eye(2)[None], max_fpr=0)
