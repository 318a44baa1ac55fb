"""Names from data that could lead out of a folder, or break a file's name."""

import dataclasses
import os
import pathlib

import pytest

from inp_former_jax.data.errors import DataError
from inp_former_jax.data.image_files import StoredFile
from inp_former_jax.data.names import path_within, require_name
from inp_former_jax.data.records import Dataset, Record

GOOD = ["cable", "pipe fryum.2", "Größe 部品", "क्‍ष", "..a", "a" * 255]
BAD = {
  "": "is empty",
  " ": "is empty",
  ".": "leads to another folder",
  "..": "leads to another folder",
  "a/b": "path separator",
  "../../../x": "path separator",
  "/etc": "path separator",
  "a\\b": "path separator",
  "a\0": "control character",
  "\x1b[2J": "control character",
  "two\nlines": "control character",
  "\x9b2J": "control character",
  "byte\udcff": "not UTF-8",
  "gpj.\u202egood": "direction of the text",
  "a" * 256: "longer than 255 bytes",
  "部" * 86: "longer than 255 bytes",
}


@pytest.mark.parametrize("name", GOOD)
def test_names_that_are_taken(name):
  assert require_name(name, "category", "here") == name
  assert Record(pathlib.Path("/a") / name, name, 1, name).category == name


@pytest.mark.parametrize("name", BAD)
def test_names_that_are_refused(name):
  with pytest.raises(DataError, match=BAD[name]) as caught:
    require_name(name, "category", "split.csv, line 3")
  message = str(caught.value)
  assert message.startswith("split.csv, line 3: the category is ")
  assert message.isprintable() and len(message) < 500


RECORD = Record(pathlib.Path("/data/a.png"), "cable", 1, "cut")


@pytest.mark.parametrize("field", ["category", "defect", "view", "source"])
@pytest.mark.parametrize("name", [n for n in BAD if n])
def test_records_refuse_names(field, name):
  with pytest.raises(DataError, match=BAD[name]) as caught:
    dataclasses.replace(RECORD, **{field: name})
  assert str(caught.value).startswith("/data/a.png: the ")


def test_samples_may_lie_in_folders_but_not_above_them():
  assert dataclasses.replace(RECORD, sample="NG/cut/S0001").sample
  with pytest.raises(DataError, match="sample"):
    dataclasses.replace(RECORD, sample="NG/../S0001")


def test_a_category_may_begin_with_its_source_only():
  mixed = dataclasses.replace(RECORD, category="visa/cable", source="visa")
  assert mixed.category == "visa/cable"
  for category in ("mvtec/cable", "visa/../cable", "visa/visa/cable"):
    with pytest.raises(DataError, match="category"):
      dataclasses.replace(mixed, category=category)


@pytest.mark.parametrize("name", ["a\x1b.png", "byte\udcff.png", ".."])
def test_names_of_images_are_checked_wherever_they_lie(name):
  for image in (
    pathlib.Path("/data") / name,
    StoredFile("/data", "train", 0, f"x/{name}"),
  ):
    with pytest.raises(DataError, match="name of an image") as caught:
      dataclasses.replace(RECORD, image=image)
    assert str(caught.value).encode()


@pytest.mark.parametrize("pair", [("Nut", "nut"), ("caf\xe9", "cafe\u0301")])
def test_categories_that_some_file_systems_take_for_one(pair):
  records = [dataclasses.replace(RECORD, category=name) for name in pair]
  with pytest.raises(DataError, match="Two categories have nearly the same"):
    Dataset("parts", (records[0],), (), unlabelled=(records[1],))


def test_paths_stay_in_their_folder(tmp_path):
  assert path_within(tmp_path, "a", "b.tiff") == tmp_path / "a" / "b.tiff"
  (tmp_path / "home").mkdir()
  (tmp_path / "home" / "out").symlink_to(tmp_path)
  (tmp_path / "link").symlink_to(tmp_path / "home")
  path_within(tmp_path / "link", "a")  # the folder itself may be a link
  for names in (("..", "x"), ("/etc", "x"), ("out", "x"), ("",), ("a", "..")):
    with pytest.raises(DataError, match="would be written to"):
      path_within(tmp_path / "home", *names)
  with pytest.raises(DataError, match="longer than 255 bytes"):
    path_within(tmp_path, f"{'a' * 251}.tiff")
  assert os.listdir(tmp_path / "home") == ["out"]
