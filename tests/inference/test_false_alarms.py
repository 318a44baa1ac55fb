"""Thresholds: their ranks, their promises, their intervals."""

import numpy as np
import pytest
import scipy.stats

from inp_former_jax.inference import false_alarms


@pytest.mark.parametrize(
  "count, rate, rank",
  [(19, 0.05, 19), (39, 0.05, 38), (99, 0.05, 95), (99, 0.01, 99), (9, 0.5, 5)],
)
def test_image_threshold_is_the_conformal_rank(count, rate, rank):
  scores = np.random.default_rng(0).permutation(np.arange(1.0, count + 1))
  assert false_alarms.image_bound(scores, rate).threshold == rank


def test_too_few_images_give_the_highest_score():
  assert false_alarms.least_images(0.05) == 19
  assert false_alarms.least_images(0.01) == 99
  bound = false_alarms.image_bound(np.arange(8.0), 0.05)
  assert bound.threshold == 7
  np.testing.assert_allclose(
    bound.interval, scipy.stats.beta.ppf([0.025, 0.975], 1, 8)
  )


def test_the_rate_is_kept_on_average_and_the_interval_in_19_of_20():
  """500 calibrations, each with 60 images of a skewed distribution."""
  random = np.random.default_rng(1)
  rates, inside = [], []
  for _ in range(500):
    bound = false_alarms.image_bound(random.lognormal(size=60), 0.1)
    # The true rate, known for this distribution.
    rate = scipy.stats.lognorm.sf(bound.threshold, 1)
    rates.append(rate)
    inside.append(bound.interval[0] <= rate <= bound.interval[1])
  assert 0.08 < np.mean(rates) <= 0.1 + 0.005
  assert 0.92 < np.mean(inside) < 0.98


def test_pixel_threshold_keeps_its_rate_where_pixels_are_many():
  pixels = list(np.random.default_rng(0).random((30, 4000)))
  bound = false_alarms.pixel_bound(pixels, 0.01)
  share = (np.concatenate(pixels) > bound.threshold).mean()
  assert 0.0098 < share <= 0.01
  low, high = bound.interval
  assert low < 0.01 < high and high - low < 0.003


def test_pixel_interval_knows_that_pixels_of_an_image_are_alike():
  """Twenty images of one value each tell as little as twenty pixels."""
  pixels = [np.full(1000, value) for value in np.linspace(0, 1, 20)]
  low, high = false_alarms.pixel_bound(pixels, 0.1).interval
  assert low <= 0.05 and high >= 0.2


def test_pixel_interval_contains_the_true_rate():
  random = np.random.default_rng(2)
  inside = []
  for _ in range(60):
    level = random.normal(size=(40, 1))  # an image has a level of its own
    pixels = level + random.normal(size=(40, 500))
    bound = false_alarms.pixel_bound(list(pixels), 0.05)
    rate = scipy.stats.norm.sf(bound.threshold / np.sqrt(2))
    inside.append(bound.interval[0] <= rate <= bound.interval[1])
  assert np.mean(inside) > 0.85


def test_one_pixel_does():
  bound = false_alarms.pixel_bound([np.array([0.3])], 0.001)
  assert bound.threshold == 0.3


def test_f1_threshold_separates_what_can_be_separated():
  labels = np.array([0, 0, 0, 1, 1], bool)
  scores = np.array([0.1, 0.3, 0.2, 0.5, 0.9])
  threshold, f1 = false_alarms.f1_threshold(labels, scores)
  assert f1 == 1 and threshold == pytest.approx(0.4)


def test_f1_threshold_is_the_best_of_all():
  random = np.random.default_rng(0)
  labels = random.random(200) < 0.3
  scores = labels + random.normal(size=200)
  threshold, f1 = false_alarms.f1_threshold(labels, scores)

  def f1_at(value):
    alarms = scores > value
    return 2 * (alarms & labels).sum() / (alarms.sum() + labels.sum())

  assert f1 == pytest.approx(f1_at(threshold))
  assert f1 == pytest.approx(max(f1_at(value) for value in scores - 1e-9))


def test_all_defective_is_below_every_score():
  threshold, f1 = false_alarms.f1_threshold(
    np.array([True, True, False]), np.array([0.2, 0.4, 0.2])
  )
  assert f1 == pytest.approx(0.8) and threshold < 0.2


def test_rate_interval_is_that_of_clopper_and_pearson():
  assert false_alarms.rate_interval(0, 14)[0] == 0
  assert false_alarms.rate_interval(0, 14)[1] == pytest.approx(0.2316, abs=1e-4)
