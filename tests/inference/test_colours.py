"""The colour scale: good parts stay cool, defects reach the hot end."""

import numpy as np
import pytest

from inp_former_jax.inference.colours import colour_scale


def maps(peak, count=20, seed=0):
  random = np.random.default_rng(seed)
  result = random.normal(0.05, 0.005, (count, 64, 64)).clip(0.03, 0.07)
  result[:, 20:30, 20:30] = peak
  return list(result)


def test_good_parts_stay_below_three_fifths_of_the_scale():
  normal = maps(0.06)
  for others in ((), maps(0.08), maps(0.3)):
    scale = colour_scale(iter(normal), iter(others))
    limit = scale.vmin + 0.6 * (scale.vmax - scale.vmin)
    assert scale.vmin == pytest.approx(0.05, abs=1e-3)
    assert max(m.max() for m in normal) <= limit + 1e-9


def test_badly_separated_maps_use_the_whole_scale_for_good_parts():
  scale = colour_scale(maps(0.35), maps(0.36))
  share = (0.35 - scale.vmin) / (scale.vmax - scale.vmin)
  assert share == pytest.approx(0.6)


def test_defects_reach_the_hot_end_whatever_a_few_outliers():
  normal, defective = maps(0.06), maps(0.3)
  plain = colour_scale(normal, defective)
  assert plain.vmax == pytest.approx(0.3)
  normal[0][0, 0] = defective[0][0, 0] = 1.9
  assert colour_scale(normal, defective).vmax < 0.35


def test_constant_maps_still_give_a_scale():
  scale = colour_scale([np.zeros((8, 8))])
  assert scale.vmin < scale.vmax


def test_scale_refuses_no_normal_maps_and_nan():
  with pytest.raises(ValueError, match="normal"):
    colour_scale([])
  damaged = np.full((8, 8), np.nan)
  with pytest.raises(ValueError, match="not finite"):
    colour_scale([np.zeros((8, 8))], [damaged])
