"""What an evaluation leaves in its workdir: scores, pictures and the page."""

import csv
import dataclasses
import json

import numpy as np
import pytest
from PIL import Image

from inp_former_jax.evaluation import report
from inp_former_jax.evaluation.html_report import page
from inp_former_jax.evaluation.results import Evaluation
from tests.evaluation.fake_evaluation import (
  CALIBRATION,
  NASTY,
  SCALE,
  THRESHOLDS,
  fake_evaluation,
)

FILES = {
  "metrics.json",
  "metrics.csv",
  "test_scores.csv",
  "grid.png",
  "inps.png",
  "report.html",
}
HOSTILE = "<b onclick=x>bold"


def written(folder) -> set[str]:
  return {path.name for path in folder.iterdir() if path.is_file()}


def scores_of(folder) -> list[dict[str, str]]:
  path = folder / "test_scores.csv"
  with open(path, newline="", encoding="utf-8", errors="surrogateescape") as f:
    return list(csv.DictReader(f))


@pytest.fixture
def result(tmp_path) -> Evaluation:
  return fake_evaluation(tmp_path / "data", ("bolt", HOSTILE))


def test_everything_is_written_whatever_the_names(
  result, config, tmp_path, capsys
):
  report.write_report(result, config, tmp_path)
  assert written(tmp_path) == FILES
  assert "report.html in" in capsys.readouterr().out
  for name in ("grid.png", "inps.png"):
    with Image.open(tmp_path / name) as image:
      assert image.format == "PNG" and image.width > 600
  again = tmp_path / "again"
  report.write_report(result, config, again)
  first = (tmp_path / "report.html").read_bytes()
  assert (
    first.replace(tmp_path.name.encode(), b"again")
    == (again / "report.html").read_bytes()
  )


def test_scores_have_all_digits_and_no_decision_without_thresholds(
  result, config, tmp_path
):
  report.write_report(result, config, tmp_path)
  rows = scores_of(tmp_path)
  assert [row["image"] for row in rows] == [
    str(r.image) for r in result.records
  ]
  found = np.array([float(row["score"]) for row in rows])
  np.testing.assert_array_equal(found, result.image_scores.astype(np.float64))
  for row, record in zip(rows, result.records, strict=True):
    assert row["category"] == record.category
    assert (row["label"], row["defect"]) == (str(record.label), record.defect)
    assert row["normalised"] == row["decision"] == row["threshold"] == ""


def test_scores_are_decided_by_the_calibration(config, tmp_path):
  result = fake_evaluation(
    tmp_path / "data", ("bolt",), calibration=CALIBRATION
  )
  report.write_report(result, config, tmp_path)
  decisions = set()
  for row in scores_of(tmp_path):
    score = float(row["score"])
    assert float(row["threshold"]) == THRESHOLDS.image
    assert float(row["normalised"]) == THRESHOLDS.normalised(score)
    above = score > THRESHOLDS.image
    assert row["decision"] == ("anomalous" if above else "normal")
    decisions.add(row["decision"])
  assert decisions == {"anomalous", "normal"}


def test_metrics_note_the_colour_scale(result, config, tmp_path):
  report.write_report(result, config, tmp_path)
  content = json.loads((tmp_path / "metrics.json").read_text())
  assert content["colour_scale"] == [SCALE.vmin, SCALE.vmax]
  merged = Evaluation(10, result.categories, result.mean)
  report.write_report(merged, config, tmp_path / "merged")
  content = json.loads((tmp_path / "merged" / "metrics.json").read_text())
  assert content["colour_scale"] is None


def test_names_are_escaped(result, config, tmp_path):
  report.write_report(result, config, tmp_path)
  text = (tmp_path / "report.html").read_text(encoding="utf-8")
  for hostile in (HOSTILE, NASTY[0]):
    assert hostile not in text
  assert "&lt;b onclick=x&gt;bold" in text
  assert "&lt;img src=x onerror=alert(1)&gt;.png" in text
  assert "http://" not in text and "https://" not in text


def test_merged_results_link_to_the_pages_of_the_categories(
  result, config, tmp_path
):
  merged = Evaluation(10, result.categories, result.mean)
  (tmp_path / "bolt").mkdir()
  (tmp_path / "bolt" / "report.html").write_text("its page")
  report.write_report(merged, config, tmp_path)
  assert written(tmp_path) == FILES - {
    "test_scores.csv",
    "grid.png",
    "inps.png",
  }
  text = (tmp_path / "report.html").read_text()
  assert text.count('<a href="') == 1
  assert '<a href="bolt/report.html">bolt</a>' in text


def test_a_category_is_no_link_to_a_script(config, tmp_path):
  name = "javascript:alert(1)"
  found = fake_evaluation(tmp_path / "data", (name,))
  (tmp_path / name).mkdir()
  (tmp_path / name / "report.html").touch()
  merged = Evaluation(10, found.categories, found.mean)
  report.write_report(merged, config, tmp_path)
  text = (tmp_path / "report.html").read_text()
  assert '<a href="javascript%3Aalert%281%29/report.html">' in text
  assert 'href="javascript:' not in text


def test_the_page_has_pictures_of_misses_and_false_alarms(
  result, config, tmp_path
):
  report.write_report(result, config, tmp_path)
  text = (tmp_path / "report.html").read_text()
  # Three of each kind and category, and one image of the INPs.
  assert text.count("data:image/jpeg;base64,") == 2 * 2 * 3 + 1
  assert text.count("<svg") == 1 + 2 * 4
  assert "Defective images with the lowest scores" in text
  assert f"{'data.layout'}</th><td>{config.data.layout}" in text


def test_a_model_without_inps_and_thresholds_has_no_empty_parts(
  result, config, tmp_path
):
  bare = dataclasses.replace(result, inps={})
  report.write_report(bare, config, tmp_path)
  assert written(tmp_path) == FILES - {"inps.png"}
  text = (tmp_path / "report.html").read_text()
  assert "Intrinsic normal prototypes" not in text
  assert "no thresholds yet" in text and "Loss" not in text


def test_one_class_alone_still_gives_a_page(config, tmp_path):
  both = fake_evaluation(tmp_path / "data", ("bolt",))
  n = both.categories["bolt"].normal
  cases = {i: m for i, m in both.worst_maps.items() if i < n}
  only_normal = dataclasses.replace(
    both,
    records=both.records[:n],
    image_scores=both.image_scores[:n],
    maps={0: both.maps[0]},
    worst_maps=cases,
    pixel_curves={"bolt": {}},
    inps={},
  )
  report.write_report(only_normal, config, tmp_path)
  text = (tmp_path / "report.html").read_text()
  assert "defective (0)" in text and text.count("<svg") == 1


@pytest.mark.slow
@pytest.mark.parametrize("number", [30, 60])
def test_a_page_of_many_categories_is_no_larger_than_5_mb(
  config, tmp_path, number
):
  # Noise is the worst that a JPEG can meet.
  names = tuple(f"category_{i}" for i in range(number))
  result = fake_evaluation(tmp_path / "data", names)
  report.write_report(result, config, tmp_path)
  assert 1e6 < (tmp_path / page.REPORT).stat().st_size < 5e6
