"""Your own images by a list, and every line that is not as it must be."""

import json

import pytest

from inp_former_jax.data.errors import DataError
from inp_former_jax.data.layouts.folder import read_folder
from inp_former_jax.data.records import DEFECTIVE, NORMAL
from tests.data.layouts.test_mvtec import touch


@pytest.fixture
def root(tmp_path):
  return touch(
    tmp_path / "parts",
    *(f"{name}.png" for name in "abcd"),
    "sub/e.png",
    "d_mask.png",
  )


def write(root, *lines: str, name="split.csv", encoding="utf-8"):
  (root / name).write_text("\n".join(lines) + "\n", encoding=encoding)
  return root


def write_jsonl(root, *objects):
  return write(root, *map(json.dumps, objects), name="split.jsonl")


def expect_error(root, *parts, categories=()):
  with pytest.raises(DataError) as caught:
    read_folder(root, categories)
  for part in parts:
    assert str(part) in str(caught.value)


def summary(records) -> list[tuple]:
  return [
    (r.category, r.image.stem, r.label, r.defect, [m.name for m in r.masks])
    for r in records
  ]


TRAIN = [("nut", "a", 0, "good", []), ("parts", "b", 0, "good", [])]
TEST = [
  ("nut", "c", 0, "good", []),
  ("nut", "d", 1, "bent", ["d_mask.png"]),
  ("nut", "e", 1, "defect", []),
]


def test_csv(root):
  write(
    root,
    "image, label,mask,category,split,defect",
    "b.png,,,,,",
    "a.png,normal,,nut,train,",
    "",
    "c.png,good,,nut,test,good",
    '"d.png",NG,d_mask.png,nut,,bent',
    ",,,,,",
    "sub/e.png,1,,nut,Test,",
  )
  dataset = read_folder(root)
  assert dataset.name == "parts"
  assert summary(dataset.train) == TRAIN
  assert summary(dataset.test) == TEST
  assert dataset.train[0].image == root / "a.png"


def test_jsonl(root):
  write_jsonl(
    root,
    {"image": "b.png"},
    {"image": "a.png", "label": 0, "mask": None, "category": "nut"},
    {"image": "c.png", "label": "ok", "split": "test", "category": "nut"},
    {
      "image": "d.png",
      "label": "anomaly",
      "mask": "d_mask.png",
      "category": "nut",
      "defect": "bent",
    },
    {"image": "sub/e.png", "label": 1, "mask": "", "category": "nut"},
  )
  dataset = read_folder(root)
  assert summary(dataset.train) == TRAIN
  assert summary(dataset.test) == TEST


@pytest.mark.parametrize(
  ("label", "expected"),
  [(label, NORMAL) for label in ("normal", "Good", "OK", "0")]
  + [(label, DEFECTIVE) for label in ("anomaly", "BAD", "ng", "1")],
)
def test_labels(root, label, expected):
  write(root, "image,label,split", "a.png,,", f"b.png,{label},test")
  assert read_folder(root).test[0].label == expected


def test_list_as_excel_writes_it(root):
  lines = "image;label\r", "a.png;normal\r", "b.png;anomaly\r"
  write(root, *lines, encoding="utf-8-sig")
  assert [r.image.name for r in read_folder(root).test] == ["b.png"]


def test_categories_are_kept_in_the_order_asked_for(root):
  write(root, "image,category", "a.png,x", "b.png,y", "c.png,z")
  assert read_folder(root, ["z", "x"]).categories == ("z", "x")
  expect_error(root, "'w'", "x, y, z", categories=["w"])


def test_two_lists(root):
  write(root, "image", "a.png")
  write_jsonl(root, {"image": "a.png"})
  expect_error(root, root / "split.csv", root / "split.jsonl", "expected one")


@pytest.mark.parametrize("content", ["", "\n\n", "image,label\n", "\ufeff"])
@pytest.mark.parametrize("name", ["split.csv", "split.jsonl"])
def test_empty_list(root, content, name):
  if name == "split.jsonl" and "image" in content:
    content = " "
  (root / name).write_text(content, encoding="utf-8")
  expect_error(root, root / name, "lists no image")


def test_unknown_columns_suggest_the_nearest(root):
  write(root, "image,Lable,x", "a.png,normal,")
  expect_error(root, "line 1", "'Lable', 'x'", "Did you mean 'label'?")


def test_unknown_key(root):
  write_jsonl(root, {"image": "a.png"}, {"image": "b.png", "masks": "d.png"})
  expect_error(root, "line 2", "'masks'", "Did you mean 'mask'?")


def test_column_twice(root):
  write(root, "image,image", "a.png,b.png")
  expect_error(root, "line 1", "'image' twice")


def test_no_column_of_images(root):
  write(root, "label,mask", "normal,")
  expect_error(root, "line 1", "no column image", "label, mask")


BAD_LINES = {
  "missing image": ("x.png,,,,,", ["image", "x.png does not exist"]),
  "folder": ("sub,,,,,", ["sub is a folder"]),
  "too long": ("x" * 5000 + ",,,,,", ["does not exist"]),
  "missing mask": ("b.png,1,x.png,,,", ["mask", "x.png does not exist"]),
  "outside": ("../b.png,,,,,", ["'../b.png'"]),
  "mask outside": ("b.png,1,/etc/passwd,,,", ["'/etc/passwd'"]),
  "no image": (",normal,,,,", ["names no image"]),
  "listed twice": ("a.png,,,,,", ["a.png", "twice", "line 2"]),
  "same with a dot": ("./a.png,,,,,", ["a.png", "twice", "line 2"]),
  "label": ("b.png,fine,,,,", ["label is 'fine'", "normal, good, ok, 0"]),
  "split": ("b.png,,,,val,", ["split is 'val'", "train, test"]),
  "trained defect": ("b.png,bad,,,train,", ["b.png", "defective", "train"]),
  "forgotten label": ("b.png,,d_mask.png,,,", ["none is given", "mask"]),
  "normal with a defect": ("b.png,ok,,,,bent", ["label is normal", "bent"]),
  "defect called good": ("b.png,1,,,,Good", ["defective", "'Good'"]),
  "category": ("b.png,,,../x,,", ["'../x'"]),
  "few cells": ("b.png,1", ["has 2 cells, expected 6"]),
  "many cells": ("b.png,,,,,,", ["has 7 cells, expected 6"]),
  "quote": ('"b.png,,,,,', ["not valid CSV"]),
}


@pytest.mark.parametrize("case", BAD_LINES)
def test_bad_lines_of_csv(root, case):
  line, parts = BAD_LINES[case]
  header = "image,label,mask,category,split,defect"
  write(root, header, "a.png,,,,,", line)
  expect_error(root, root / "split.csv, line 3", *parts)


@pytest.mark.parametrize(
  ("line", "parts"),
  [
    ("{", ["not valid JSON"]),
    ("[" * 100_000, ["not valid JSON"]),
    ('["b.png"]', ["'[\"b.png\"]'", "expected an object"]),
    ('{"image": ["b.png"]}', ['image is ["b.png"]', "expected a string"]),
    ('{"image": "b.png", "label": true}', ["label is true"]),
    ('{"image": "b.png", "label": 2}', ["label is '2'"]),
    ('{"image": null}', ["names no image"]),
    ('{"image": "b\\u0000.png"}', ["NUL"]),
  ],
)
def test_bad_lines_of_jsonl(root, line, parts):
  write(root, '{"image": "a.png"}', "", line, name="split.jsonl")
  expect_error(root, root / "split.jsonl, line 3", *parts)


def test_list_in_another_encoding(root):
  write(root, "image,defect", "a.png,", "b.png,Stoß", encoding="latin-1")
  expect_error(root, root / "split.csv, line 3", "not UTF-8")


def test_category_without_training_images(root):
  write(root, "image,category,split", "a.png,nut,", "b.png,bolt,test")
  expect_error(root, root / "split.csv", "'bolt'", "b.png")
