"""Real-IAD -> records, and what may be amiss with it."""

import json
import pathlib

import pytest

from inp_former_jax.data.errors import DataError
from inp_former_jax.data.layouts.realiad import read_realiad
from inp_former_jax.data.layouts.registry import read_layout
from inp_former_jax.data.records import BRIGHT

JSONS = "realiad_jsons/realiad_jsons"


def entry(category, kind, sample, view, *, shown=True, mask=True):
  """As published; `shown`: the view shows the defect of its sample."""
  folder = "OK" if kind == "OK" else f"NG/{kind}"
  name = folder.replace("/", "_")
  stem = (
    f"{folder}/S{sample:04d}/{category}_{sample:04d}_{name}_C{view}_"
    "20230922133813"
  )
  defective = kind != "OK" and shown
  return {
    "category": category,
    "anomaly_class": kind if defective else "OK",
    "image_path": f"{stem}.jpg",
    "mask_path": f"{stem}.png" if defective and mask else None,
  }


def index(category, *, views=5):
  """The JSON of a category with two samples to train on, three to test on."""
  numbers = range(1, views + 1)
  return {
    "meta": {"prefix": f"{category}/", "normal_class": "OK"},
    "train": [entry(category, "OK", s, v) for s in (1, 2) for v in numbers],
    "test": [
      *(entry(category, "OK", 3, v) for v in numbers),
      *(entry(category, "AK", 1, v, shown=v < 5) for v in numbers),
      *(entry(category, "QS", 1, v, mask=v < 2) for v in numbers),
    ],
  }


def write_json(root, category, content, jsons=JSONS):
  file = root / jsons / f"{category}.json"
  file.parent.mkdir(parents=True, exist_ok=True)
  file.write_text(json.dumps(content, indent=1))
  return file


def touch_files(folder: pathlib.Path, content: dict):
  """Empty ones: reading a layout opens none of them."""
  for item in content["train"] + content["test"]:
    for name in (item["image_path"], item["mask_path"]):
      if name:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


@pytest.fixture
def root(tmp_path):
  root = tmp_path / "Real-IAD"
  for category in ("usb", "audiojack"):
    write_json(root, category, index(category))
    touch_files(root / "realiad_512" / category, index(category))
  return root


@pytest.fixture
def usb(root):
  """Writes another JSON of the category "usb", whose files are there."""

  def write(change=None, jsons=JSONS):
    content = index("usb")
    if change:
      change(content)
    return write_json(root, "usb", content, jsons)

  return write


def expect_error(root, *parts, categories="usb", **folders):
  with pytest.raises(DataError) as caught:
    read_realiad(root, categories, **folders)
  for part in parts:
    assert str(part) in str(caught.value)


def test_records(root):
  dataset = read_realiad(root)
  assert dataset.name == "Real-IAD"
  assert dataset.categories == ("audiojack", "usb")
  assert (len(dataset.train), len(dataset.test)) == (20, 30)
  record = dataset.train[0]
  name = "OK/S0001/audiojack_0001_OK_C1_20230922133813.jpg"
  assert record.image == root / "realiad_512" / "audiojack" / name
  assert record.category == "audiojack"
  assert (record.label, record.defect) == (0, "good")
  assert (record.masks, record.sample, record.view) == ((), "OK/S0001", "C1")


def test_defects_have_labels_masks_and_samples(root):
  test = read_realiad(root, "usb").test
  assert [r.label for r in test] == [0] * 5 + [1] * 4 + [0] + [1] * 5
  record = test[6]
  assert (record.label, record.defect) == (1, "AK")
  assert (record.sample, record.view) == ("NG/AK/S0001", "C2")
  name = "NG/AK/S0001/usb_0001_NG_AK_C2_20230922133813.png"
  assert record.masks == (root / "realiad_512" / "usb" / name,)
  assert record.mask_values == BRIGHT


def test_a_view_that_does_not_show_the_defect_is_normal(root):
  record = read_realiad(root, "usb").test[9]
  assert (record.label, record.defect, record.masks) == (0, "good", ())
  assert (record.sample, record.view) == ("NG/AK/S0001", "C5")


def test_a_defect_without_mask_counts_image_wise(root):
  records = read_realiad(root, "usb").test[10:]
  assert [len(r.masks) for r in records] == [1, 0, 0, 0, 0]
  assert {(r.label, r.defect) for r in records} == {(1, "QS")}


def test_samples_tell_five_views_each(root):
  records = read_realiad(root, "usb").test
  assert [r.view for r in records] == ["C1", "C2", "C3", "C4", "C5"] * 3
  samples = ["OK/S0003", "NG/AK/S0001", "NG/QS/S0001"]
  assert [r.sample for r in records[::5]] == samples
  assert [r.sample for r in records[4::5]] == samples


def test_other_names_have_neither_sample_nor_view(root, usb):
  def change(content):
    content["train"] = [dict(content["train"][0], image_path="OK/a.jpg")]

  usb(change)
  (root / "realiad_512" / "usb" / "OK" / "a.jpg").touch()
  record = read_realiad(root, "usb").train[0]
  assert (record.sample, record.view) == ("", "")


def test_categories_in_the_order_asked_for(root):
  order = ("usb", "audiojack")
  assert read_realiad(root, order).categories == order
  expect_error(root, "Did you mean 'usb'?", categories=["usb", "usbs"])


def test_registered(root):
  assert read_layout("realiad", root) == read_realiad(root)


def test_the_largest_images_unless_others_are_named(root):
  for size in ("1024", "raw"):
    touch_files(root / f"realiad_{size}" / "usb", index("usb"))

  def folder(**folders):
    record = read_realiad(root, "usb", **folders).train[0]
    return record.image.relative_to(root).parts[0]

  assert folder() == "realiad_1024"
  assert folder(images="realiad_512") == "realiad_512"
  assert folder(images="realiad_raw") == "realiad_raw"
  expect_error(
    root, "no folder realiad_256", "realiad_raw", images="realiad_256"
  )


def test_other_jsons(root):
  single = "realiad_jsons/realiad_jsons_sv"
  write_json(root, "usb", index("usb", views=1), single)
  dataset = read_realiad(root, jsons="realiad_jsons_sv")
  assert (dataset.categories, len(dataset.test)) == (("usb",), 3)
  assert read_realiad(root, jsons=single) == dataset
  expect_error(root, "realiad_jsons/realiad_jsons_sv", jsons="sv")


def test_jsons_without_the_level_between(root, tmp_path):
  expected = read_realiad(root)
  (root / JSONS).rename(tmp_path / "jsons")
  (root / "realiad_jsons").rmdir()
  (tmp_path / "jsons").rename(root / "realiad_jsons")
  assert read_realiad(root) == expected
  write_json(root, "usb", index("usb", views=1), "realiad_jsons_sv")
  assert len(read_realiad(root, jsons="realiad_jsons_sv").train) == 2


def test_paths_without_prefix_start_from_the_category(root, usb):
  expected = read_realiad(root, "usb")
  usb(lambda content: content.pop("meta"))
  assert read_realiad(root, "usb") == expected


def test_paths_without_prefix_may_hold_the_category(root, usb):
  def change(content):
    del content["meta"]["prefix"]
    for item in content["train"] + content["test"]:
      for key in ("image_path", "mask_path"):
        item[key] = item[key] and "usb/" + item[key]

  expected = read_realiad(root, "usb")
  usb(change)
  assert read_realiad(root, "usb") == expected


def test_another_name_of_the_normal_class(root, usb):
  def change(content):
    content["meta"]["normal_class"] = "fine"
    for item in content["train"]:
      item["anomaly_class"] = "fine"

  expected = read_realiad(root, "usb")
  usb(change)
  assert read_realiad(root, "usb") == expected


def test_the_test_list_may_be_empty(root, usb):
  usb(lambda content: content.update(test=[]))
  assert read_realiad(root, "usb").test == ()


def defect_in_training(content):
  content["train"].append(content["test"].pop(6))


def test_defects_among_the_training_images_are_refused(root, usb):
  file = usb(defect_in_training)
  expect_error(root, f"{file}, train[10]", "NG_AK_C2", "realiad_jsons_fuiad")


def test_defects_among_the_training_images_where_they_belong(root, usb):
  usb(defect_in_training, "realiad_jsons/realiad_jsons_fuiad_0.1")
  train = read_realiad(root, jsons="realiad_jsons_fuiad_0.1").train
  assert [r.label for r in train] == [0] * 10 + [1]
  assert (train[-1].defect, len(train[-1].masks)) == ("AK", 1)


def repeated_in_test(content):
  content["test"].append(content["train"][3])


def repeated_in_training(content):
  content["train"].append(content["train"][3])


def test_an_image_listed_twice(root, usb):
  file = usb(repeated_in_training)
  expect_error(root, f"{file}, train[10]", f"{file}, train[3]", "twice")
  file = usb(repeated_in_test)
  expect_error(root, f"{file}, test[15]", f"{file}, train[3]", "twice")


def test_who_trains_without_labels_may_test_on_the_same_images(root, usb):
  name = "realiad_jsons_fuiad_0.1"
  usb(repeated_in_test, f"realiad_jsons/{name}")
  assert len(read_realiad(root, jsons=name).test) == 16
  usb(repeated_in_training, f"realiad_jsons/{name}")
  expect_error(root, "train[3]", "twice", jsons=name)


def test_missing_files(root):
  folder = root / "realiad_512" / "usb" / "NG" / "AK" / "S0001"
  stem = "usb_0001_NG_AK_C2_20230922133813"
  (folder / f"{stem}.png").unlink()
  file = root / JSONS / "usb.json"
  expect_error(root, file, folder / f"{stem}.png", "1 of its 30 files")
  (folder / f"{stem}.jpg").unlink()
  expect_error(root, folder / f"{stem}.jpg", "2 of its 30 files")
  assert len(read_realiad(root, "audiojack").train) == 10


def test_a_category_without_images(root):
  write_json(root, "zipper", index("zipper"))
  folder = root / "realiad_512" / "zipper"
  expect_error(root, folder, "30 of its 30", categories=())


@pytest.mark.parametrize("path", ["../usb/a.jpg", "/a.jpg", "OK/../../a.jpg"])
@pytest.mark.parametrize("key", ["image_path", "mask_path"])
def test_paths_that_leave_the_root(root, usb, path, key):
  file = usb(lambda content: content["test"][5].update({key: path}))
  expect_error(root, f"{file}, test[5]", repr(path))


@pytest.mark.parametrize("prefix", ["../usb/", "/usb/"])
def test_a_prefix_that_leaves_the_root(root, usb, prefix):
  file = usb(lambda content: content["meta"].update(prefix=prefix))
  expect_error(root, f"{file}, meta.prefix", repr(prefix))


def test_links_inside_the_root_may_lead_out_of_it(root, tmp_path):
  (root / "realiad_512").rename(tmp_path / "elsewhere")
  (root / "realiad_512").symlink_to(tmp_path / "elsewhere")
  assert len(read_realiad(root).train) == 20


@pytest.mark.parametrize(
  ("content", "found"),
  [
    (b'{"train": [\n  {"image_path" "a"}]}', "line 2, column 17"),
    (b'{"train": [', "line 1, column 12"),
    (b"", "line 1, column 1"),
    (b'{"train": "\xff"}', "cannot be read"),
    (b"[1]", "a list"),
  ],
)
def test_broken_json(root, usb, content, found):
  file = usb()
  file.write_bytes(content)
  expect_error(root, file, found, "Copy the file again")


@pytest.mark.parametrize(
  ("change", "parts"),
  [
    (lambda c: c.pop("train"), ["'train'", "meta, test"]),
    (lambda c: c.update(test={}), ["'test'"]),
    (lambda c: c.update(train=[]), ["no training images", "'usb'"]),
    (lambda c: c.update(meta=["OK"]), ["meta is ['OK']"]),
    (lambda c: c["meta"].update(prefix=3), ["meta.prefix is 3"]),
    (lambda c: c["train"].append(1), ["train[10]", "is 1"]),
    (
      lambda c: c["train"][2].pop("image_path"),
      ["train[2]", "'image_path'", "category, anomaly_class, mask_path"],
    ),
    (lambda c: c["test"][7].pop("anomaly_class"), ["test[7]"]),
    (lambda c: c["test"][7].pop("mask_path"), ["test[7]", "'mask_path'"]),
    (lambda c: c["test"][7].update(image_path=None), ["test[7]", "None"]),
    (lambda c: c["test"][7].update(anomaly_class=""), ["test[7]", "''"]),
    (lambda c: c["test"][7].update(mask_path=[]), ["test[7]", "or null"]),
    (
      lambda c: c["test"][0].update(mask_path="m.png"),
      ["test[0]", "is normal but has the mask m.png"],
    ),
  ],
)
def test_wrong_parts_are_named(root, usb, change, parts):
  expect_error(root, usb(change), *parts)


def test_missing_folders(root, tmp_path):
  expect_error(tmp_path / "x", tmp_path / "x", "does not exist")
  expect_error(root / JSONS / "usb.json", "is not a folder")
  expect_error(root / "realiad_512", "no folder", "audiojack, usb")
  (root / "realiad_jsons").rename(root / "jsons")
  expect_error(root, "no JSON files in", "found jsons, realiad_512")
