import io
import pathlib

import numpy as np
import pytest
import rich.console

from inp_former_jax import report
from inp_former_jax.data.records import Record
from inp_former_jax.evaluate import (
  CategoryResult,
  Evaluation,
  PixelScores,
  grid_records,
)


def record(category: str, defect: str) -> Record:
  label = int(defect != "good")
  return Record(pathlib.Path("x.png"), category, label, defect)


def test_grid_takes_every_kind_in_turn():
  records = [record("a", "good")] * 5 + [record("a", "dent")] * 5
  records += [record("b", "good")] * 1 + [record("b", "hole")] * 5
  assert grid_records(records, 4) == [0, 5, 10, 11]
  assert grid_records(records, 6) == [0, 1, 5, 6, 10, 11]
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
  for name, value in exact.metrics().items():
    assert streaming.metrics()[name] == pytest.approx(value, abs=1e-4)


def evaluation(**categories: CategoryResult) -> Evaluation:
  mean = dict.fromkeys(report.COLUMNS, 0.5)
  return Evaluation(3, categories, mean, [], np.zeros(0), {}, None)


def shown(result: Evaluation) -> str:
  console = rich.console.Console(file=io.StringIO(), width=120)
  console.print(report.table(result))
  return console.file.getvalue()


def test_table_shows_undefined_metrics_and_missing_masks():
  metrics = dict.fromkeys(report.COLUMNS, 0.91234)
  metrics["pixel_ap"] = float("nan")
  text = shown(
    evaluation(
      bolt=CategoryResult(metrics, 5, 3, 0),
      nut=CategoryResult(metrics, 4, 2, 1),
      pin=CategoryResult(metrics, 4, 2, 2),
    )
  )
  assert "91.23" in text and " - " in text and "5 + 3" in text
  assert "bolt *" not in text and "nut *" in text and "pin **" in text
  assert "* 1 of 2 defective images have no mask" in text
  assert "mean" in text


def test_json_has_null_where_a_metric_is_undefined(config):
  metrics = dict.fromkeys(report.COLUMNS, float("nan"))
  result = evaluation(bolt=CategoryResult(metrics, 5, 0, 0))
  content = report._json(result, config)
  assert '"pixel_ap": null' in content and "NaN" not in content
