"""Overlays, contours and colour bars: colours, sizes, hatching, memory."""

import numpy as np
import pytest

from inp_former_jax.evaluation import figures


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
