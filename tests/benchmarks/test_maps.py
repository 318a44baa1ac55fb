"""The metrics of many maps are timed, and compared with exact functions."""

import numpy as np
import pytest

from inp_former_jax.benchmarks import maps


def test_metrics_of_several_numbers_of_maps():
  runs, exactness = maps.measure([90, 20, 50], size=32)
  assert [run.maps for run in runs] == [20, 50, 90]
  for run in runs:
    assert run.seconds > 0 and run.extra_bytes >= 0
    assert 0.5 < run.metrics["pixel_auroc"] <= 1
    assert "image_auroc" in run.metrics
  assert exactness.maps == 40
  for name in ("pixel_auroc", "pixel_ap", "pixel_aupro"):
    assert exactness.counted[name] == pytest.approx(
      exactness.exact[name], abs=1e-5
    )
  table = maps.format_table(runs, exactness)
  assert "straight line" in table and "pixel_aupro" in table


def test_maps_are_shared_out_among_categories():
  (run,), _ = maps.measure([90], size=32, categories=4)
  assert run.categories == 4 and run.whole_bytes > run.extra_bytes
  assert 0.5 < run.metrics["pixel_aupro"] <= 1
  records = maps.Source(32).records(90, 4)
  categories = [record.category for record in records]
  assert categories == sorted(categories) and len(set(categories)) == 4
  assert {categories.count(name) for name in categories} == {22, 23}
  with pytest.raises(ValueError, match="--categories is 4; .* from 1 to 3"):
    maps.measure([3, 9], size=32, categories=4)


def test_maps_differ_and_the_same_ones_come_again():
  source = maps.Source(32)
  first, again = (
    np.concatenate([found for found, _ in source.batches(100)])
    for _ in range(2)
  )
  assert first.shape == (100, 32, 32)
  assert np.unique(first, axis=0).shape == first.shape
  np.testing.assert_array_equal(first, again)
  assert first.min() >= 0 and first.max() <= 2


def test_an_impossible_number_is_refused():
  with pytest.raises(ValueError, match="--maps is .*0"):
    maps.measure([5, 0], size=32)
