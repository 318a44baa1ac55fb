"""Thresholds from images, with the evidence for them."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from inp_former_jax.data.records import DEFECTIVE, NORMAL, Record
from inp_former_jax.inference import calibrating, calibration
from inp_former_jax.inference.calibration import ALL, CalibrationError
from inp_former_jax.inference.predictor import Predictor


@pytest.fixture(scope="module")
def records(tiny_run):
  """18 test images of three categories, six of each."""
  return tiny_run.result.records


@pytest.fixture(scope="module")
def answers(predictor, records):
  return list(predictor([record.image for record in records]))


def test_half_of_the_normal_images_are_above_a_rate_of_one_half(
  predictor, records, answers
):
  found = calibrating.calibrate(predictor, records, image_rate=0.5)
  scores = {}
  for record, answer in zip(records, answers, strict=True):
    if record.label == NORMAL:
      scores.setdefault(record.category, []).append(answer.score)
      scores.setdefault(ALL, []).append(answer.score)
  assert found.thresholds.keys() == {ALL, "board", "cloth", "washer"}
  for category, values in scores.items():
    rank = int(np.ceil((len(values) + 1) / 2))
    expected = sorted(values)[rank - 1]
    assert found.thresholds_of(category).image == pytest.approx(expected)
    assert found.evidence[category].normal == len(values)
  assert found.step == predictor.model.step
  assert found.options == predictor.options


def test_pixel_threshold_keeps_its_rate_on_its_own_images(
  predictor, records, answers
):
  found = calibrating.calibrate(
    predictor, [r for r in records if r.label == NORMAL], pixel_rate=0.02
  )
  maps = [
    a.anomaly_map
    for r, a in zip(records, answers, strict=True)
    if r.label == NORMAL
  ]
  pixels = np.concatenate([m[~np.isnan(m)] for m in maps])
  share = (pixels > found.thresholds_of().pixel).mean()
  assert 0.012 < share < 0.026
  low, high = found.evidence[ALL].pixel_interval
  assert low <= 0.02 <= high


def test_with_defects_the_miss_rate_is_told(predictor, records, answers):
  found = calibrating.calibrate(predictor, records, image_rate=0.2)
  threshold = found.thresholds_of().image
  missed = [
    a.score <= threshold
    for r, a in zip(records, answers, strict=True)
    if r.label == DEFECTIVE
  ]
  assert found.evidence[ALL].miss_rate == pytest.approx(np.mean(missed))
  assert found.evidence[ALL].defective == len(missed)


def test_f1_finds_thresholds_for_images_and_pixels(predictor, records, answers):
  found = calibrating.calibrate(predictor, records, method="f1")
  labels = np.array([r.label for r in records])
  scores = np.array([a.score for a in answers])
  alarms = scores > found.thresholds_of().image
  f1 = 2 * (alarms & (labels == 1)).sum() / (alarms.sum() + labels.sum())
  evidence = found.evidence[ALL]
  assert evidence.image_f1 == pytest.approx(f1)
  assert evidence.image_rate == pytest.approx(alarms[labels == 0].mean())
  assert 0 < evidence.pixel_f1 < 1
  assert evidence.pixel_interval[0] <= evidence.pixel_rate
  assert "F1" in next(calibrating.describe(found))


def test_one_threshold_for_the_model_if_wanted(predictor, records):
  found = calibrating.calibrate(predictor, records, per_category=False)
  assert found.thresholds.keys() == {ALL}


def test_too_few_images_are_told(predictor, records):
  found = calibrating.calibrate(predictor, records)
  *lines, warning = calibrating.describe(found)
  assert len(lines) == 4 and lines[0].startswith("all images: image threshold")
  assert "takes at least 19 normal images" in warning
  assert "33.3% with the 2 of board" in warning
  (only, warning) = calibrating.describe(found, categories=False)
  assert only == lines[0]


def test_the_order_of_the_images_does_not_matter(predictor, records):
  one = calibrating.calibrate(predictor, records)
  other = calibrating.calibrate(predictor, records[::-1])
  assert one.sha256 == other.sha256
  assert one.thresholds_of().image == pytest.approx(
    other.thresholds_of().image, abs=1e-6
  )


def test_regions_that_are_ignored_do_not_count(tiny_run, tmp_path):
  """A model that sees noise in the ignored half alone."""
  ignore = np.zeros((60, 60), bool)
  ignore[:, :30] = True
  random = np.random.default_rng(0)
  records = []
  for number in range(4):
    image = np.full((60, 60, 3), 128, np.uint8)
    image[:, :15] = random.integers(0, 256, (60, 15, 3))
    path = tmp_path / f"{number}.png"
    Image.fromarray(image).save(path)
    records.append(Record(path, "a", NORMAL, "good"))
  predictor = Predictor.load(tiny_run.workdir, ignore=ignore)
  found = calibrating.calibrate(predictor, records)
  answers = list(predictor([r.image for r in records]))
  assert found.thresholds_of().image == pytest.approx(
    max(a.score for a in answers)
  )
  assert found.options.ignored and found.thresholds_of().pixel <= max(
    np.nanmax(a.anomaly_map) for a in answers
  )


def test_what_cannot_be_calibrated_is_refused(predictor, records):
  normal = [r for r in records if r.label == NORMAL]
  defective = [r for r in records if r.label == DEFECTIVE]
  with pytest.raises(CalibrationError, match="no normal images"):
    calibrating.calibrate(predictor, defective)
  with pytest.raises(CalibrationError, match="no defective images"):
    calibrating.calibrate(predictor, normal, method="f1")
  with pytest.raises(ValueError, match="`method` is 'best'"):
    calibrating.calibrate(predictor, normal, method="best")
  for name in ("image_rate", "pixel_rate"):
    with pytest.raises(ValueError, match=f"`{name}` is 1"):
      calibrating.calibrate(predictor, normal, **{name: 1})


def test_a_predictor_loads_the_calibration_of_its_options(
  tiny_run, predictor, records, tmp_path
):
  found = calibrating.calibrate(predictor, records)
  tiled = dataclasses.replace(
    found, options=dataclasses.replace(found.options, tile=(30, 30, 5))
  )
  before = calibration.read_calibrations(tiny_run.workdir)
  calibration.write_calibration(tiny_run.workdir, tiled)
  try:
    loaded = Predictor.load(tiny_run.workdir, tile=(30, 30, 5))
    assert loaded.calibration == tiled
    assert Predictor.load(tiny_run.workdir, zero_shot=True).calibration is None
  finally:
    for item in before:
      calibration.write_calibration(tiny_run.workdir, item)
