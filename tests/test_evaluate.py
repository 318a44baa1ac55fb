import json
import pathlib

import jax
import numpy as np
import pytest

from inp_former_jax.data.records import Record
from inp_former_jax.evaluate import check_settings
from inp_former_jax.evaluation import report
from inp_former_jax.evaluation.collector import PixelScores
from inp_former_jax.evaluation.drawing.grid import grid_records
from inp_former_jax.evaluation.results import (
  COLUMNS,
  CategoryResult,
  Evaluation,
)


def record(category: str, defect: str) -> Record:
  label = int(defect != "good")
  return Record(pathlib.Path("x.png"), category, label, defect)


def test_grid_takes_all_categories_alike_normal_ones_first():
  records = [record("a", "dent")] * 5 + [record("a", "good")] * 5
  records += [record("b", "good")] * 1 + [record("b", "hole")] * 5
  # a: good 5, dent 0, good 6, ...; b: good 10, hole 11, hole 12, ...
  assert grid_records(records, 2) == [5, 10]
  assert grid_records(records, 4) == [5, 0, 10, 11]
  assert grid_records(records, 6) == [5, 6, 0, 10, 11, 12]
  assert len(grid_records(records, 99)) == len(records)
  assert grid_records(records, 0) == []


def test_exact_and_streaming_scores_agree():
  rng = np.random.default_rng(0)
  masks = np.zeros((6, 32, 32), bool)
  masks[3:, 8:14, 9:20] = True
  maps = (0.2 + 0.1 * masks + 0.05 * rng.random(masks.shape)).astype("f4")
  exact = PixelScores(exact=True, max_fpr=0.3)
  streaming = PixelScores(exact=False, max_fpr=0.3)
  for scores in (exact, streaming):
    scores.add(maps[:2], masks[:2])
    scores.add(maps[2:], masks[2:])
  found = streaming.finish()
  for name, value in exact.finish().metrics.items():
    assert found.metrics[name] == pytest.approx(value, abs=1e-4)
  for name, curve in exact.finish().curves.items():
    np.testing.assert_array_equal(found.curves[name].y, curve.y)


def test_json_has_null_where_a_metric_is_undefined(config):
  metrics = dict.fromkeys(COLUMNS, float("nan"))
  bolt = CategoryResult(metrics, normal=5, defective=0, without_mask=0)
  result = Evaluation(3, {"bolt": bolt}, dict.fromkeys(COLUMNS, 0.5))
  content = json.dumps(report._content(result, config), allow_nan=False)
  assert '"pixel_ap": null' in content


def test_exact_metrics_need_a_single_process(config, monkeypatch):
  config.evaluation.exact = True
  check_settings(config)
  monkeypatch.setattr(jax, "process_count", lambda: 2)
  with pytest.raises(ValueError, match="evaluation.exact is True.*2 processes"):
    check_settings(config)
