"""VisA in its two forms -> records, and what may be amiss with them."""

import pathlib
import shutil

import numpy as np
import pytest
from PIL import Image

from inp_former_jax.data.errors import DataError
from inp_former_jax.data.layouts.registry import read_layout
from inp_former_jax.data.layouts.visa import read_visa
from inp_former_jax.data.masks import load_mask
from inp_former_jax.data.records import NON_ZERO
from inp_former_jax.data.transforms import Preprocessing

IMAGES = "Data/Images"
# As in the published list: shuffled, the categories one after the other.
ROWS = (
  f"candle,train,normal,candle/{IMAGES}/Normal/0836.JPG,",
  f"candle,train,normal,candle/{IMAGES}/Normal/0451.JPG,",
  f"candle,test,normal,candle/{IMAGES}/Normal/0001.JPG,",
  f"candle,test,anomaly,candle/{IMAGES}/Anomaly/001.JPG,"
  "candle/Data/Masks/Anomaly/001.png",
  f"candle,test,anomaly,candle/{IMAGES}/Anomaly/000.JPG,"
  "candle/Data/Masks/Anomaly/000.png",
  f"cashew,train,normal,cashew/{IMAGES}/Normal/000.JPG,",
  f"cashew,test,anomaly,cashew/{IMAGES}/Anomaly/000.JPG,"
  "cashew/Data/Masks/Anomaly/000.png",
)
HEADER = "object,split,label,image,mask"


def touch(file: pathlib.Path):
  file.parent.mkdir(parents=True, exist_ok=True)
  file.touch()


def write_rows(root: pathlib.Path, *rows: str, header: str = HEADER):
  file = root / "split_csv" / "1cls.csv"
  file.parent.mkdir(parents=True, exist_ok=True)
  file.write_text("".join(f"{row}\n" for row in (header, *rows)))
  return file


@pytest.fixture
def raw(tmp_path):
  root = tmp_path / "VisA"
  write_rows(root, *ROWS)
  for row in ROWS:
    for name in row.split(",")[3:]:
      if name:
        touch(root / name)
  touch(root / "candle" / "image_anno.csv")
  touch(root / "candle" / IMAGES / "Normal" / "9999.JPG")  # not in the list
  return root


@pytest.fixture
def prepared(tmp_path):
  """What the publishers' script makes of `raw`."""
  root = tmp_path / "VisA_pytorch"
  for row in ROWS:
    category, split, label, image, mask = row.split(",")
    kind = "good" if label == "normal" else "bad"
    folder = root / "1cls" / category
    touch(folder / split / kind / pathlib.Path(image).name)
    if mask:
      touch(folder / "ground_truth" / kind / pathlib.Path(mask).name)
  return root


def expect_error(root, *parts, categories=()):
  with pytest.raises(DataError) as caught:
    read_visa(root, categories)
  for part in parts:
    assert str(part) in str(caught.value)


def facts(dataset):
  """What both forms must agree on."""
  return [
    [
      (
        r.category,
        r.label,
        r.defect,
        r.image.name,
        tuple(mask.name for mask in r.masks),
        r.mask_values,
      )
      for r in records
    ]
    for records in (dataset.train, dataset.test)
  ]


def test_raw(raw):
  dataset = read_visa(raw)
  assert dataset.name == "VisA"
  assert facts(dataset) == [
    [
      ("candle", 0, "good", "0451.JPG", (), NON_ZERO),
      ("candle", 0, "good", "0836.JPG", (), NON_ZERO),
      ("cashew", 0, "good", "000.JPG", (), NON_ZERO),
    ],
    [
      ("candle", 1, "bad", "000.JPG", ("000.png",), NON_ZERO),
      ("candle", 1, "bad", "001.JPG", ("001.png",), NON_ZERO),
      ("candle", 0, "good", "0001.JPG", (), NON_ZERO),
      ("cashew", 1, "bad", "000.JPG", ("000.png",), NON_ZERO),
    ],
  ]
  record = dataset.test[0]
  assert record.image == raw / "candle" / IMAGES / "Anomaly" / "000.JPG"
  assert record.masks == (raw / "candle/Data/Masks/Anomaly/000.png",)


def test_both_forms_agree(raw, prepared):
  assert facts(read_visa(prepared)) == facts(read_visa(raw))
  assert read_visa(prepared).name == "VisA_pytorch"


def test_prepared_without_the_level_1cls(prepared, tmp_path):
  expected = facts(read_visa(prepared))
  assert read_visa(prepared / "1cls").name == "VisA_pytorch"
  (prepared / "1cls").rename(tmp_path / "visa")
  dataset = read_visa(tmp_path / "visa")
  assert (dataset.name, facts(dataset)) == ("visa", expected)
  assert read_visa(tmp_path / "visa" / "cashew").categories == ("cashew",)


def test_prepared_within_the_folder_of_the_raw_form(raw, prepared):
  (prepared / "1cls").rename(raw / "1cls")
  assert read_visa(raw).train[0].image.parts[-3:-1] == ("train", "good")


def test_registered(raw):
  assert read_layout("visa", raw) == read_visa(raw)


@pytest.mark.parametrize("form", ["raw", "prepared"])
def test_categories(form, request):
  root = request.getfixturevalue(form)
  assert read_visa(root).categories == ("candle", "cashew")
  assert read_visa(root, "cashew").categories == ("cashew",)
  order = ("cashew", "candle")
  assert read_visa(root, order).categories == order
  expect_error(root, "Did you mean 'candle'?", categories=["candles"])


def test_a_mask_of_class_numbers_is_read(raw):
  record = read_visa(raw, "cashew").test[0]
  mask = np.zeros((14, 14), np.uint8)
  mask[:7] = 3
  Image.fromarray(mask).save(record.masks[0])
  preprocessing = Preprocessing((14, 14), (14, 14))
  defective = load_mask(
    record.masks, preprocessing, 14, values=record.mask_values
  )
  np.testing.assert_array_equal(defective, mask > 0)


def test_categories_left_out_need_not_be_there(raw):
  shutil.rmtree(raw / "cashew")
  assert len(read_visa(raw, ["candle"]).train) == 2
  expect_error(raw, "3 of its 10 files", "cashew")


def test_missing_images(raw):
  for number in ("0001", "0836"):
    (raw / "candle" / IMAGES / "Normal" / f"{number}.JPG").unlink()
  expect_error(raw, "0836.JPG, which does not exist; 2 of its 10 files", "1cls")


def test_an_anomaly_without_mask_counts_image_wise(raw):
  write_rows(raw, *ROWS[:3], ROWS[3].rpartition(",")[0] + ",")
  assert read_visa(raw).test[0].masks == ()


@pytest.mark.parametrize(
  ("header", "found"),
  [
    ("object,split,label,image", "object, split, label, image;"),
    ("object,set,label,image,mask", "object, set, label, image, mask;"),
    ("object,split,label,image,mask,extra", "mask, extra;"),
    ("object,split,label,image,image", "image, image;"),
  ],
)
def test_other_columns(raw, header, found):
  file = write_rows(raw, *ROWS, header=header)
  expect_error(raw, file, found, "expected object, split, label, image, mask")


def test_columns_in_another_order_after_a_byte_order_mark(raw):
  rows = [",".join(reversed(row.split(","))) for row in ROWS]
  header = "\ufeffmask,image,label,split,object"
  expected = read_visa(raw)
  write_rows(raw, *rows, header=header)
  assert read_visa(raw) == expected


@pytest.mark.parametrize(
  ("row", "parts"),
  [
    ("candle,train,normal,a.JPG", ["fewer values", "5 columns"]),
    ("candle,train,normal,a.JPG,,", ["more or fewer values"]),
    (",train,normal,a.JPG,", ["the category is ''"]),
    ("..,train,normal,a.JPG,", ["the category is '..'"]),
    ("candle,val,normal,a.JPG,", ["'val'", "train or test"]),
    ("candle,test,good,a.JPG,", ["'good'", "normal or anomaly"]),
    ("candle,train,anomaly,a.JPG,", ["a.JPG", "in the split train", "Change"]),
    ("candle,test,normal,a.JPG,b.png", ["a.JPG", "b.png", "normal"]),
    ("candle,test,normal,,", ["is empty"]),
    ("candle,test,normal,/a.JPG,", ["'/a.JPG'", "absolute"]),
    ("candle,test,normal,../a.JPG,", ["'../a.JPG'", "upwards"]),
    ("candle,test,anomaly,a.JPG,x/../../b.png", ["b.png", "upwards"]),
    (ROWS[0], ["0836.JPG is listed twice", "line 2"]),
    (ROWS[0].replace("train", "test"), ["0836.JPG is listed twice"]),
  ],
)
def test_wrong_lines_are_named(raw, row, parts):
  file = write_rows(raw, *ROWS, row)
  expect_error(raw, f"{file}, line {len(ROWS) + 2}", *parts)


@pytest.mark.parametrize("content", [b"\xff\xfe\0", b'object,"split\n'])
def test_unreadable_list(raw, content):
  file = write_rows(raw)
  file.write_bytes(content)
  expect_error(raw, file, "cannot be read", "Copy it")


def test_empty_list(raw):
  expect_error(raw, write_rows(raw), "lists no image")
  file = write_rows(raw, header="")
  file.write_bytes(b"")
  expect_error(raw, file, "(none)")


def test_nothing_to_train_on(raw):
  file = write_rows(raw, *ROWS[:5], ROWS[6])
  expect_error(raw, file, "'cashew'", "train")
  assert read_visa(raw, "candle").categories == ("candle",)


def test_raw_without_its_list(raw):
  (raw / "split_csv" / "1cls.csv").unlink()
  expect_error(raw, raw, "no split_csv/1cls.csv", "archive")


def test_folders_in_neither_form(tmp_path):
  expect_error(tmp_path / "x", tmp_path / "x", "does not exist")
  touch(tmp_path / "file")
  expect_error(tmp_path / "file", "is not a folder")
  expect_error(tmp_path, tmp_path, "no folder at all", "<category>/train/good/")
  touch(tmp_path / "normal" / "a.png")
  expect_error(tmp_path, "the folders normal", "split_csv/1cls.csv")
