"""Answers in files: tables, lines of JSON, pictures."""

import csv
import json
import os
import pathlib

import numpy as np
import pytest
from PIL import Image

from inp_former_jax.data.errors import DataError
from inp_former_jax.evaluation.answer_files import AnswerFiles
from inp_former_jax.inference.answer import Answer
from inp_former_jax.inference.colours import ColourScale
from inp_former_jax.inference.decision import Thresholds

THRESHOLDS = Thresholds(0.3, 0.5, 0.2)
SCALE = ColourScale(0.0, 1.0)
ODD = ["a b.png", "line\nbreak.png", "grün.png", "bytes\udce4.png", "=1+1.png"]


def answer_for(path, size=(30, 40), decided=True) -> Answer:
  anomaly_map = np.zeros(size, np.float32)
  anomaly_map[:5], anomaly_map[10:20, 10:20] = np.nan, 0.9
  if not decided:
    return Answer(path, 0.4, None, None, None, anomaly_map, None)
  mask = THRESHOLDS.mask(anomaly_map)
  normalised = float(THRESHOLDS.normalised(0.4))
  return Answer(path, 0.4, normalised, True, THRESHOLDS, anomaly_map, mask, "x")


def save(path, size=(30, 40)):
  path.parent.mkdir(parents=True, exist_ok=True)
  pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
  Image.fromarray(pixels).save(path)
  return path


def test_tables_hold_the_answers_with_all_digits(tmp_path):
  with AnswerFiles(tmp_path / "out") as files:
    files.add(answer_for(tmp_path / "a.png"))
    files.add(answer_for(tmp_path / "b.png", decided=False))
  with open(tmp_path / "out" / "predictions.csv", newline="") as file:
    rows = list(csv.DictReader(file))
  lines = (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()
  assert [json.loads(line)["source"] for line in lines] == [
    row["source"] for row in rows
  ]
  assert json.loads(lines[0]) == {
    "source": str(tmp_path / "a.png"),
    "category": "x",
    "score": 0.4,
    "decision": "anomalous",
    "threshold": 0.3,
    "normalised": float(THRESHOLDS.normalised(0.4)),
  }
  assert rows[1]["decision"] == rows[1]["threshold"] == ""
  assert json.loads(lines[1])["threshold"] is None


@pytest.mark.parametrize("name", ODD)
def test_any_file_name_survives(tmp_path, name):
  path = save(tmp_path / "in" / name)
  kinds = ("overlay", "map", "mask", "contour")
  with AnswerFiles(
    tmp_path / "out", pictures=kinds, scale=SCALE, roots=[tmp_path / "in"]
  ) as files:
    files.add(answer_for(path))
  table = tmp_path / "out" / "predictions.csv"
  with open(table, newline="", errors="surrogateescape") as file:
    assert next(csv.DictReader(file))["source"] == str(path)
  for kind in kinds:
    suffix = ".tiff" if kind == "map" else ""
    assert (tmp_path / "out" / kind / (name + suffix)).is_file()


def test_pictures_show_what_they_say(tmp_path):
  path = save(tmp_path / "part.jpg")
  answer = answer_for(path)
  kinds = ("overlay", "map", "mask", "contour")
  with AnswerFiles(
    tmp_path / "out", pictures=kinds, scale=SCALE, roots=[tmp_path]
  ) as files:
    files.add(answer)
  loaded = {}
  for kind, suffix in zip(
    kinds, (".png", ".tiff", ".png", ".png"), strict=True
  ):
    with Image.open(tmp_path / "out" / kind / f"part.jpg{suffix}") as picture:
      loaded[kind] = np.asarray(picture)
  np.testing.assert_array_equal(loaded["map"], answer.anomaly_map)
  assert loaded["map"].dtype == np.float32
  np.testing.assert_array_equal(loaded["mask"], answer.mask * np.uint8(255))
  assert loaded["contour"].shape == (30, 40, 3)
  assert loaded["overlay"].shape[0] > 30  # with the colour bar


def test_images_of_one_name_keep_apart(tmp_path):
  paths = [
    save(tmp_path / "one" / "a.png"),
    save(tmp_path / "two" / "a.png"),
    save(tmp_path / "two" / "a.jpg"),
  ]
  with AnswerFiles(
    tmp_path / "out",
    pictures=["mask"],
    roots=[tmp_path / "one", tmp_path / "two"],
  ) as files:
    for path in paths:
      files.add(answer_for(path))
  masks = sorted((tmp_path / "out" / "mask").rglob("*.png"))
  names = [str(m.relative_to(tmp_path / "out" / "mask")) for m in masks]
  assert names == ["one/a.png", "two/a.jpg.png", "two/a.png"]


def test_without_a_calibration_there_is_no_mask(tmp_path):
  path = save(tmp_path / "a.png")
  with AnswerFiles(
    tmp_path / "out", pictures=["mask", "map"], roots=[tmp_path]
  ) as files:
    files.add(answer_for(path, decided=False))
  assert not (tmp_path / "out" / "mask").exists()
  assert (tmp_path / "out" / "map" / "a.png.tiff").is_file()


def test_earlier_answers_are_kept_if_wanted(tmp_path):
  for keep in (True, True, False):
    with AnswerFiles(tmp_path, keep=keep) as files:
      files.add(answer_for("a.png"))
      has = files.has("a.png")
    lines = (tmp_path / "predictions.csv").read_text().splitlines()
    assert lines[0].startswith("source,") and "source" not in lines[-1]
  assert len(lines) == 2 and not has
  with AnswerFiles(tmp_path, keep=True) as files:
    assert files.has("a.png") and not files.has("b.png")
    assert files.has(os.path.abspath("a.png"))


def test_pictures_stay_in_their_folder(tmp_path, monkeypatch):
  """Paths with .. are told apart from names below the folder."""
  paths = [save(tmp_path / "run" / "a.png"), save(tmp_path / "other" / "a.png")]
  before = [path.read_bytes() for path in paths]
  monkeypatch.chdir(tmp_path / "run")
  relative = [pathlib.Path("a.png"), pathlib.Path("../other/a.png")]
  with AnswerFiles(
    tmp_path / "out",
    pictures=["mask", "map"],
    roots=[pathlib.Path("."), pathlib.Path("../other")],
  ) as files:
    for path in relative:
      files.add(answer_for(path))
  found = (tmp_path / "out").rglob("a.*")
  assert {str(p.relative_to(tmp_path / "out")) for p in found} == {
    "mask/run/a.png",
    "mask/other/a.png",
    "map/run/a.png.tiff",
    "map/other/a.png.tiff",
  }
  assert [path.read_bytes() for path in paths] == before


def test_a_broken_last_line_is_written_again(tmp_path):
  with AnswerFiles(tmp_path) as files:
    files.add(answer_for("a.png"))
    files.add(answer_for("b.png"))
  path = tmp_path / "predictions.jsonl"
  for table in (path, tmp_path / "predictions.csv"):
    os.truncate(table, table.stat().st_size - 10)  # killed while writing
  with AnswerFiles(tmp_path, keep=True) as files:
    assert files.has("a.png") and not files.has("b.png")
    files.add(answer_for("b.png"))
  sources = [json.loads(x)["source"] for x in path.read_text().splitlines()]
  assert sources == ["a.png", "b.png"]
  rows = (tmp_path / "predictions.csv").read_text().splitlines()
  assert [row.split(",")[0] for row in rows] == ["source", "a.png", "b.png"]


def test_overlays_need_a_scale(tmp_path):
  with pytest.raises(ValueError, match="Overlays need the model's colour"):
    AnswerFiles(tmp_path, pictures=["overlay"])


def test_a_picture_of_a_changed_image_is_refused(tmp_path):
  path = save(tmp_path / "a.png", size=(20, 20))
  with (
    AnswerFiles(
      tmp_path / "out", pictures=["contour"], roots=[tmp_path]
    ) as files,
    pytest.raises(DataError, match="has changed"),
  ):
    files.add(answer_for(path))
