"""Curves: the areas under them are the metrics, thinned or not."""

import numpy as np
import pytest

from inp_former_jax.evaluation import curves, metrics
from inp_former_jax.evaluation.curves import Curve


def area(curve: Curve) -> float:
  return float(np.trapezoid(curve.y, curve.x))


@pytest.fixture(scope="module")
def pixels():
  rng = np.random.default_rng(0)
  masks = np.zeros((6, 48, 48), bool)
  masks[2:, 8:14, 9:30] = masks[3, 30:33, 30:33] = True
  maps = 0.2 + 0.03 * masks + 0.05 * rng.random(masks.shape)
  histograms = metrics.PixelHistograms()
  histograms.add(maps, masks)
  return histograms


# 100 of 13,000 points are drawn, which changes an area by less than 2e-3.
@pytest.mark.parametrize("points, tolerance", [(10**9, 1e-6), (100, 2e-3)])
def test_areas_are_the_metrics(pixels, monkeypatch, points, tolerance):
  monkeypatch.setattr(curves.Curve.thinned, "__defaults__", (points,))
  found = curves.pixel_curves(pixels)
  values = pixels.metrics(max_fpr=1.0)
  assert area(found["roc"]) == pytest.approx(
    values["pixel_auroc"], abs=tolerance
  )
  assert area(found["pro"]) == pytest.approx(
    values["pixel_aupro"], abs=tolerance
  )
  precision_recall = area(found["precision_recall"])
  assert precision_recall == pytest.approx(values["pixel_ap"], abs=5e-3)
  assert len(found["roc"].x) <= min(points, 20_000)


def test_image_curves_end_where_they_must():
  labels = np.array([0, 0, 1, 1, 1])
  scores = np.array([0.1, 0.3, 0.2, 0.4, 0.5])
  found = curves.image_curves(labels, scores)
  roc = found["roc"]
  assert (roc.x[0], roc.y[0], roc.x[-1], roc.y[-1]) == (0, 0, 1, 1)
  expected = metrics.image_metrics(labels, scores)["image_auroc"]
  assert area(roc) == pytest.approx(expected)


def test_one_class_has_no_curves(pixels):
  assert curves.image_curves(np.ones(3), np.arange(3)) == {}
  assert curves.pixel_curves(metrics.PixelHistograms(64)) == {}
  normal = metrics.PixelHistograms()
  normal.add(np.ones((1, 4, 4)), np.zeros((1, 4, 4)))
  assert curves.pixel_curves(normal) == {}


def test_thinning_keeps_ends_and_corners():
  x = np.linspace(0, 1, 10_001)
  step = Curve(x, (x > 0.5).astype(float))
  thin = step.thinned(50)
  assert len(thin.x) <= 50 + 2 and (thin.x[0], thin.x[-1]) == (0, 1)
  assert np.interp(0.49, thin.x, thin.y) < 0.1
  assert np.interp(0.51, thin.x, thin.y) > 0.9
  assert step.thinned(20_000) is step
