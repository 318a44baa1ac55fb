"""Decisions, and the record of calibrations beside a checkpoint."""

import dataclasses
import json

import jax.numpy as jnp
import numpy as np
import pytest

from inp_former_jax.inference import calibration
from inp_former_jax.inference.calibration import Calibration, Evidence, Options
from inp_former_jax.inference.colours import ColourScale
from inp_former_jax.inference.decision import Thresholds

THRESHOLDS = Thresholds(image=0.3, pixel=0.25, typical=0.2)


def make(step=10, **options) -> Calibration:
  evidence = Evidence("rate", 20, 0, 0.05, (0.0, 0.2), 0.001, (0.0, 0.01))
  return Calibration(
    step=step,
    options=Options(**options),
    scale=ColourScale(0.1, 0.4),
    thresholds={"": THRESHOLDS, "bölt": Thresholds(0.5, 0.4, 0.3)},
    evidence={"": evidence, "bölt": evidence},
    images="some",
    sha256="ab",
  )


def test_a_score_at_the_threshold_is_normal():
  assert not THRESHOLDS.is_anomalous(0.3)
  assert THRESHOLDS.is_anomalous(np.nextafter(0.3, 1))


@pytest.mark.parametrize("array", [np.asarray, jnp.asarray, list])
def test_normalised_scores_keep_the_order(array):
  scores = np.array([0.0, 0.2, 0.29, 0.3, 0.4, 1.0, 2.0])
  if array is list:
    found = np.array([THRESHOLDS.normalised(score) for score in scores])
  else:
    found = np.asarray(THRESHOLDS.normalised(array(scores)))
  np.testing.assert_allclose(found[[1, 3, 4]], [0.25, 0.5, 0.75], atol=1e-6)
  assert (np.diff(found) > 0).all() and found.min() > 0 and found.max() < 1


def test_pixels_that_were_not_inspected_are_not_defective():
  found = THRESHOLDS.mask(np.array([0.2, 0.26, np.nan]))
  np.testing.assert_array_equal(found, [False, True, False])


def test_what_is_written_is_read(tmp_path):
  written = make(tile=(100, 120, 20))
  calibration.write_calibration(tmp_path, written)
  assert calibration.read_calibrations(tmp_path) == [written]


def test_calibrations_stay_as_long_as_their_checkpoint(tmp_path):
  best, newest = (dataclasses.replace(make(), step=step) for step in (10, 20))
  for folder in ("10", "20", "20.orbax-checkpoint-tmp"):
    (tmp_path / "checkpoints" / folder).mkdir(parents=True)
  for item in (newest, best):
    calibration.write_calibration(tmp_path, item)
  assert calibration.read_calibrations(tmp_path) == [newest, best]
  (tmp_path / "checkpoints" / "10").rmdir()
  calibration.write_calibration(tmp_path, newest)
  assert calibration.read_calibrations(tmp_path) == [newest]


def test_one_calibration_for_each_way_of_looking(tmp_path):
  for item in (make(), make(zero_shot=True), make(tile=(9, 9, 1))):
    calibration.write_calibration(tmp_path, item)
  newer = dataclasses.replace(make(), images="others")
  calibration.write_calibration(tmp_path, newer)
  found = calibration.read_calibrations(tmp_path)
  assert len(found) == 3
  options = Options()
  assert calibration.find_calibration(tmp_path, 10, options) == newer
  assert calibration.find_calibration(tmp_path, 11, options) is None
  other = Options(map_size=64)
  assert calibration.find_calibration(tmp_path, 10, other) is None


def test_calibrations_of_older_steps_are_dropped(tmp_path):
  calibration.write_calibration(tmp_path, make(step=10))
  calibration.write_calibration(tmp_path, make(step=20, zero_shot=True))
  steps = [c.step for c in calibration.read_calibrations(tmp_path)]
  assert steps == [20]


def test_unknown_categories_get_the_models_thresholds():
  item = make()
  assert item.thresholds_of("bölt").image == 0.5
  assert item.thresholds_of("nut") == item.thresholds_of() == THRESHOLDS


@pytest.mark.parametrize(
  "content",
  ["", "[]", '{"format": 2, "calibrations": []}', '{"format": 1}', "null"],
)
def test_damaged_records_are_reported(tmp_path, content):
  path = tmp_path / "calibration.json"
  path.write_text(content)
  with pytest.raises(calibration.CalibrationError) as caught:
    calibration.read_calibrations(tmp_path)
  assert str(path) in str(caught.value)
  assert "calibrate again" in str(caught.value)


def test_fields_of_a_damaged_record_are_reported(tmp_path):
  calibration.write_calibration(tmp_path, make())
  path = tmp_path / "calibration.json"
  content = json.loads(path.read_text())
  del content["calibrations"][0]["thresholds"][""]["image"]
  path.write_text(json.dumps(content))
  with pytest.raises(calibration.CalibrationError, match="image"):
    calibration.read_calibrations(tmp_path)


def test_no_record_is_no_calibration(tmp_path):
  assert calibration.read_calibrations(tmp_path) == []
