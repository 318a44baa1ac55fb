"""Overlays, contours and colour bars: colours, sizes, hatching, memory."""

import tracemalloc

import numpy as np
import pytest

from inp_former_jax.evaluation import figures
from inp_former_jax.inference.colours import ColourScale
from inp_former_jax.inference.decision import Thresholds


def test_overlay_has_the_image_size_and_clips_scores():
  image = np.full((40, 60, 3), 128, np.uint8)
  found = figures.overlay(image, np.array([[0.0, 0.0], [1.0, 1.0]]), 0, 1)
  assert found.shape == image.shape and found.dtype == np.uint8
  cold, hot = found[0, 0].astype(int), found[-1, 0].astype(int)
  assert cold[2] > cold[0] and hot[0] > hot[2]  # blue, red
  outside = figures.overlay(image, np.array([[-1.0], [5.0]]), 0, 1)
  np.testing.assert_array_equal(outside[0, 0], cold)
  np.testing.assert_array_equal(outside[-1, 0], hot)


@pytest.mark.parametrize("score, opacity", [(0, 0.45), (0.5, 0.6), (1, 0.75)])
def test_overlay_shows_the_image_in_grey_and_less_of_it_where_hot(
  score, opacity
):
  dark, light = (np.full((8, 8, 3), v, np.uint8) for v in (40, 220))
  scores = np.full((4, 4), score)
  found = [figures.overlay(image, scores, 0, 1) for image in (dark, light)]
  gain = found[1].astype(int) - found[0]
  np.testing.assert_allclose(gain, (1 - opacity) * 180, rtol=0, atol=1)


# What was not inspected.


def test_uninspected_regions_are_hatched_in_grey():
  image = np.full((60, 80, 3), (200, 30, 60), np.uint8)
  anomaly_map = np.full((60, 80), 0.5, np.float32)
  anomaly_map[:, 40:] = np.nan
  found = figures.overlay(image, anomaly_map, 0, 1)
  seen, hatched = found[:, :40], found[:, 40:]
  assert np.ptp(seen.astype(int), axis=-1).min() > 30
  assert not np.ptp(hatched.astype(int), axis=-1).any()  # neutral
  assert len(np.unique(hatched)) == 2  # dark and light stripes
  # Diagonal: a step down and a step to the left is the same stripe.
  np.testing.assert_array_equal(hatched[1:, :-1], hatched[:-1, 1:])


def test_the_hatching_runs_on_through_the_bands_of_rows():
  image = np.full((600, 20, 3), 100, np.uint8)
  found = figures.overlay(image, np.full((600, 20), np.nan), 0, 1)
  np.testing.assert_array_equal(found[1:, :-1], found[:-1, 1:])


def test_nan_does_not_spread_when_a_map_is_resized():
  anomaly_map = np.ones((8, 8), np.float32)
  anomaly_map[:, 4:] = np.nan
  found = figures.at_size(anomaly_map, (64, 64))
  assert np.isnan(found[:, 34:]).all()
  np.testing.assert_allclose(found[:, :30], 1, rtol=1e-6)
  assert found.dtype == np.float32


def test_heat_has_the_colours_of_the_bar():
  scale = ColourScale(0.0, 1.0)
  anomaly_map = np.array([[0.0, 0.5], [1.0, np.nan]], np.float32)
  found = figures.heat(anomaly_map, scale)
  grey = np.full((2, 2, 3), 128, np.uint8)
  expected = figures.overlay(grey, anomaly_map, 0.0, 1.0)
  np.testing.assert_array_equal(found, expected)
  assert not np.ptp(found[1, 1].astype(int))


# Contours.


@pytest.mark.parametrize("side", [64, 700])
def test_contour_surrounds_the_mask_and_leaves_the_rest(side):
  image = np.full((side, side, 3), 90, np.uint8)
  mask = np.zeros((side, side), bool)
  mask[side // 4 : side // 2, side // 4 : side // 2] = True
  found = figures.contour(image, mask)
  changed = (found != image).any(axis=-1)
  assert changed.any() and not changed[mask].any()
  assert not changed[side * 3 // 4 :].any()
  line = (found == figures.LINE).all(axis=-1)
  assert line[side // 4 - 1, side // 3]  # next to the mask
  width = line[: side // 4, side // 3].sum()
  assert width == max(1, round(side / 300))
  assert (image == 90).all()


def test_contour_of_a_whole_picture_runs_along_its_border():
  image = np.zeros((40, 60, 3), np.uint8)
  line = figures.contour(image, np.ones((40, 60), bool)).any(axis=-1)
  assert line[0].all() and line[:, -1].all() and not line[1:-1, 1:-1].any()


def test_contour_of_nothing_changes_nothing():
  image = np.zeros((40, 60, 3), np.uint8)
  found = figures.contour(image, np.zeros((40, 60), bool))
  assert not found.any() and found is not image


# Single images with their bar.

SCALE = ColourScale(0.1, 0.5)


@pytest.mark.parametrize(
  "shape", [(1, 1), (300, 30), (30, 2000), (400, 600), (5, 20_000)]
)
def test_the_bar_is_below_the_picture_whatever_its_size(shape):
  picture = np.full((*shape, 3), 7, np.uint8)
  found = figures.with_colour_bar(picture, SCALE, 0.3)
  assert found.shape[1] == max(shape[1], 320)
  bar = found[shape[0] :]
  assert 40 < len(bar) < 320
  left = (found.shape[1] - shape[1]) // 2
  assert (found[: shape[0], left : left + shape[1]] == 7).all()
  assert (bar[0] == 255).all() and np.ptp(bar.astype(int), axis=-1).max() > 80


def test_the_threshold_is_marked_on_the_bar():
  picture = np.zeros((200, 640, 3), np.uint8)
  plain = figures.with_colour_bar(picture, SCALE)
  marked = figures.with_colour_bar(picture, SCALE, 0.3)
  assert len(marked) > len(plain)
  outside = figures.with_colour_bar(picture, SCALE, 0.7)
  assert outside.shape == marked.shape and (outside != marked).any()


def test_annotated_overlay_outlines_what_is_above_the_threshold():
  image = np.full((100, 400, 3), 128, np.uint8)
  anomaly_map = np.full((100, 400), 0.1, np.float32)
  anomaly_map[30:60, 100:200] = 0.4
  thresholds = Thresholds(image=0.3, pixel=0.3, typical=0.1)
  found = figures.annotated_overlay(image, anomaly_map, SCALE, thresholds)
  outline = figures.contour(
    figures.overlay(image, anomaly_map, 0.1, 0.5), anomaly_map > 0.3
  )
  np.testing.assert_array_equal(found[:100], outline)
  plain = figures.annotated_overlay(image, anomaly_map, SCALE)
  assert not (plain == figures.LINE).all(axis=-1)[:100].any()


def test_twelve_megapixels_take_a_few_times_their_memory():
  image = np.zeros((3000, 4000, 3), np.uint8)
  tracemalloc.start()
  try:
    figures.annotated_overlay(image, np.ones((64, 64), np.float32), SCALE)
    _, peak = tracemalloc.get_traced_memory()
  finally:
    tracemalloc.stop()
  assert peak < 6 * image.nbytes
