"""Tiles cover an image, and their maps blend without seams."""

import numpy as np
import pytest

from inp_former_jax.inference.framing.tiling import Tiling, check_tile

CASES = [
  ((300, 400), (100, 100, 20)),
  ((300, 401), (128, 64, 0)),
  ((50, 1000), (100, 100, 50)),  # lower than a tile
  ((7, 7), (100, 100, 99)),  # smaller than the overlap
  ((100, 100), (100, 100, 50)),
]


@pytest.mark.parametrize("size, tile", CASES)
def test_weights_sum_to_one_everywhere(size, tile):
  tiling = Tiling(size, tile)
  total = np.zeros(size)
  for part in tiling:
    left, upper, right, lower = part.box
    rows, columns = tiling.weights(part)
    assert (rows > 0).all() and (columns > 0).all()
    total[upper:lower, left:right] += np.outer(rows, columns)
  np.testing.assert_allclose(total, 1, atol=1e-6)


@pytest.mark.parametrize("size, tile", CASES)
def test_tiles_have_one_size_and_overlap_enough(size, tile):
  tiling = Tiling(size, tile)
  boxes = [part.box for part in tiling]
  assert len(boxes) == len(tiling)
  sizes = {(lower - upper, right - left) for left, upper, right, lower in boxes}
  assert sizes == {(min(tile[0], size[0]), min(tile[1], size[1]))}
  starts = sorted({box[0] for box in boxes})
  width = min(tile[1], size[1])
  for before, after in zip(starts, starts[1:], strict=False):
    assert before + width - after >= min(tile[2], width - 1)


def test_an_image_of_one_tile_has_one():
  assert [part.box for part in Tiling((60, 80), (100, 100, 10))] == [
    (0, 0, 80, 60)
  ]


def test_neighbours_fade_into_each_other():
  tiling = Tiling((10, 150), (10, 100, 50))
  first, second = tiling
  faded = np.zeros(150)
  faded[:100] += tiling.weights(first)[1]
  assert faded[:50].min() > 0.999  # alone there
  middle = faded[50:100]
  assert (np.diff(middle) < 0).all() and abs(middle[25] - 0.5) < 0.05
  assert second.box == (50, 0, 150, 10)


@pytest.mark.parametrize("tile", [(0, 9, 0), (9, 9, 9), (9, 5, 6), (9, 9, -1)])
def test_impossible_tiles_are_refused(tile):
  with pytest.raises(ValueError, match="`tile` is .*expected sides above 0"):
    check_tile(tile)
