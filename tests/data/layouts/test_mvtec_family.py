"""MVTec-AD's relatives on disk -> records, and what is wrong with a folder."""

import dataclasses
import pathlib

import numpy as np
import pytest
from PIL import Image

from inp_former_jax.data.errors import DataError
from inp_former_jax.data.layouts import btad, registry
from inp_former_jax.data.masks import load_mask
from inp_former_jax.data.transforms import Preprocessing


def touch(root: pathlib.Path, *names: str) -> pathlib.Path:
  """Empty files: reading a layout opens none of them."""
  for name in names:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).touch()
  return root


# A line for each folder; names are unsorted on purpose.
FILES = {
  "mpdd": """
tubes/train/good 000.png
tubes/test/good 000.png
tubes/test/anomalous 000.png
tubes/ground_truth/anomalous 000_mask.png
bracket_black/train/good 000.png
bracket_black/test/hole 000.png
bracket_black/ground_truth/hole 000.png
""",
  "btad": """
02/train/ok 0001.png 0000.png
02/test/ok 0000.png
02/test/ko 0001.png 0000.png
02/ground_truth/ko 0000.png
01/train/ok 0000.bmp
01/test/ko 0000.bmp
01/ground_truth/ko 0000.png
03/train/ok 0000.bmp
03/test/ko 0000.bmp
03/ground_truth/ko 0000.bmp
""",
  "mvtec_loco": """
nuts/train/good 001.png 000.png
nuts/validation/good 001.png 000.png
nuts/test/structural_anomalies 000.png 001.png
nuts/test/logical_anomalies 000.png
nuts/test/good 000.png
nuts/ground_truth/logical_anomalies/000 001.png 000.png
nuts/ground_truth/structural_anomalies/000 000.png
nuts defects_config.json
bolts/train/good 000.png
""",
  "mvtec_ad2": """
rice/train/good 000_regular.png
rice/validation/good 000_regular.png
rice/test_public/good 000_regular.png
rice/test_public/bad 000_shift_1.png 000_regular.png
rice/test_public/ground_truth/bad 000_regular_mask.png 000_shift_1_mask.png
rice/test_private_mixed 000_mixed.png
rice/test_private 001_regular.png 000_regular.png
can/train/good 000_regular.png
can/test_private 000_regular.png
""",
}
# Label, defect and image, and its masks; 02 of BTAD has an image without.
RECORDS = {
  "mpdd": """
train:
0 good bracket_black/train/good/000.png
0 good tubes/train/good/000.png
test:
1 hole bracket_black/test/hole/000.png
  bracket_black/ground_truth/hole/000.png
1 anomalous tubes/test/anomalous/000.png
  tubes/ground_truth/anomalous/000_mask.png
0 good tubes/test/good/000.png
""",
  "btad": """
train:
0 good 01/train/ok/0000.bmp
0 good 02/train/ok/0000.png
0 good 02/train/ok/0001.png
0 good 03/train/ok/0000.bmp
test:
1 ko 01/test/ko/0000.bmp
  01/ground_truth/ko/0000.png
1 ko 02/test/ko/0000.png
  02/ground_truth/ko/0000.png
1 ko 02/test/ko/0001.png
0 good 02/test/ok/0000.png
1 ko 03/test/ko/0000.bmp
  03/ground_truth/ko/0000.bmp
""",
  "mvtec_loco": """
train:
0 good bolts/train/good/000.png
0 good nuts/train/good/000.png
0 good nuts/train/good/001.png
validation:
0 good nuts/validation/good/000.png
0 good nuts/validation/good/001.png
test:
0 good nuts/test/good/000.png
1 logical_anomalies nuts/test/logical_anomalies/000.png
  nuts/ground_truth/logical_anomalies/000/000.png
  nuts/ground_truth/logical_anomalies/000/001.png
1 structural_anomalies nuts/test/structural_anomalies/000.png
  nuts/ground_truth/structural_anomalies/000/000.png
1 structural_anomalies nuts/test/structural_anomalies/001.png
""",
  "mvtec_ad2": """
train:
0 good can/train/good/000_regular.png
0 good rice/train/good/000_regular.png
validation:
0 good rice/validation/good/000_regular.png
test:
1 bad rice/test_public/bad/000_regular.png
  rice/test_public/ground_truth/bad/000_regular_mask.png
1 bad rice/test_public/bad/000_shift_1.png
  rice/test_public/ground_truth/bad/000_shift_1_mask.png
0 good rice/test_public/good/000_regular.png
unlabelled:
0 test_private can/test_private/000_regular.png
0 test_private rice/test_private/000_regular.png
0 test_private rice/test_private/001_regular.png
0 test_private_mixed rice/test_private_mixed/000_mixed.png
""",
}
# Layout -> a category with all folders, and where categories have what.
FULL = dict(mpdd="tubes", btad="02", mvtec_loco="nuts", mvtec_ad2="rice")
TRAIN = {layout: "train/good" for layout in FULL} | {"btad": "train/ok"}
TEST = {layout: "test" for layout in FULL} | {"mvtec_ad2": "test_public"}

every_layout = pytest.mark.parametrize("layout", FULL)


@pytest.fixture
def make(tmp_path):
  def write(layout):
    for line in FILES[layout].strip().splitlines():
      folder, *names = line.split()
      touch(tmp_path / "parts" / folder, *names)
    return tmp_path / "parts"

  return write


def expect_error(layout, root, *parts, categories=()):
  with pytest.raises(DataError) as caught:
    registry.read_layout(layout, root, categories)
  for part in parts:
    assert str(part) in str(caught.value)


def described(dataset, root):
  """A line for each split, for each image, and for each of its masks."""
  text = "\n"
  for split in ("train", "validation", "test", "unlabelled"):
    records = getattr(dataset, split)
    text += f"{split}:\n" if records else ""
    for r in records:
      text += f"{r.label} {r.defect} {r.image.relative_to(root)}\n"
      text += "".join(f"  {mask.relative_to(root)}\n" for mask in r.masks)
      assert r.category == r.image.relative_to(root).parts[0]
  return text


@every_layout
def test_records_of_a_whole_data_set(layout, make):
  root = make(layout)
  assert described(registry.read_layout(layout, root), root) == RECORDS[layout]


def test_btad_root_may_be_the_folder_of_the_archive_or_its_parent(make):
  root = make("btad")
  inner = root.rename(root.with_name(btad.ARCHIVE_FOLDER))
  dataset = registry.read_layout("btad", inner)
  assert dataset.name == btad.ARCHIVE_FOLDER
  assert registry.read_layout("btad", inner.parent) == dataset


def test_loco_masks_are_merged_and_all_values_but_0_count(make):
  root = make("mvtec_loco")
  first, second = np.zeros((2, 14, 14), np.uint8)
  first[:2, :4] = 255
  second[:4, :2] = 40  # dark, yet not 0: a kind of defect
  folder = root / "nuts" / "ground_truth" / "logical_anomalies" / "000"
  Image.fromarray(first).save(folder / "000.png")
  Image.fromarray(second).save(folder / "001.png")
  record = registry.read_layout("mvtec_loco", root, "nuts").test[1]
  sizes = Preprocessing((14, 14), (14, 14))
  mask = load_mask(record.masks, sizes, 14, values=record.mask_values)
  np.testing.assert_array_equal(mask, (first > 0) | (second > 0))


@every_layout
def test_only_the_training_images_must_be_there(layout, tmp_path):
  root = touch(tmp_path, f"nut/{TRAIN[layout]}/0.png")
  dataset = registry.read_layout(layout, root)
  assert len(dataset.train) == 1
  assert not (dataset.test + dataset.validation + dataset.unlabelled)


@every_layout
def test_root_may_be_one_category(layout, make):
  root, name = make(layout), FULL[layout]
  whole = registry.read_layout(layout, root, [name])
  single = registry.read_layout(layout, str(root / name))
  assert single == dataclasses.replace(whole, name=name)


@every_layout
def test_a_category_may_be_called_train(layout, tmp_path):
  good = TRAIN[layout]
  root = touch(tmp_path, f"train/{good}/0.png", f"bus/{good}/0.png")
  assert registry.read_layout(layout, root).categories == ("bus", "train")


@every_layout
def test_hidden_files_are_ignored_and_extensions_in_any_case(layout, make):
  root = make(layout)
  before = registry.read_layout(layout, root)
  touch(root / FULL[layout] / TRAIN[layout], "999.PNG", "._000.png")
  touch(root / FULL[layout] / "train", ".small/000.png", "Thumbs.db")
  touch(root / FULL[layout] / TEST[layout], ".small/000.png")
  touch(root / ".cache" / TRAIN[layout], "000.png")
  after = registry.read_layout(layout, root)
  assert after.categories == before.categories
  new = set(after.train) - set(before.train)
  assert [r.image.name for r in new] == ["999.PNG"]
  assert after.test == before.test


@every_layout
def test_root_that_is_no_folder(layout, tmp_path):
  good = f"<category>/{TRAIN[layout]}/"
  expect_error(layout, tmp_path / "x", tmp_path / "x", "does not exist", good)
  touch(tmp_path, "x")
  expect_error(layout, tmp_path / "x", tmp_path / "x", "is not a folder")


@every_layout
def test_root_without_categories(layout, tmp_path):
  expect_error(layout, tmp_path, tmp_path, "no folder at all")
  touch(tmp_path, "normal/deep/a.png", "abnormal/b.png")
  expect_error(layout, tmp_path, tmp_path, "abnormal, normal", "Point `root`")


@every_layout
def test_unknown_category_suggests_the_nearest(layout, make):
  root, name = make(layout), FULL[layout]
  expect_error(layout, root, f"Did you mean {name!r}?", categories=[name + "x"])


@every_layout
def test_category_without_normal_training_images(layout, make):
  root = make(layout)
  touch(root, f"gear/{TEST[layout]}/good/0.png")
  good = root / "gear" / TRAIN[layout]
  expect_error(layout, root, f"category without {TRAIN[layout]}", good)
  touch(good, "readme.txt")
  expect_error(layout, root, good, "no images", ".tiff")


@every_layout
@pytest.mark.parametrize("folder", ["train/ko", "train"])
def test_training_images_must_be_normal(layout, folder, make):
  root = make(layout)
  category = touch(root / FULL[layout], f"{folder}/7.JPG")
  found = f"{category / folder} holds images, e.g. 7.JPG"
  wanted = f"training images must be normal and lie in {category}"
  expect_error(layout, root, found, wanted, category / TRAIN[layout], "Move")


@every_layout
def test_defects_in_a_category_left_out_do_not_matter(layout, make):
  root = make(layout)
  other = registry.read_layout(layout, root).categories[0]
  touch(root, f"{other}/train/ko/0.png")
  dataset = registry.read_layout(layout, root, [FULL[layout]])
  assert dataset.categories == (FULL[layout],)


@pytest.mark.parametrize("layout", ["mvtec_loco", "mvtec_ad2"])
def test_validation_images_must_be_normal(layout, make):
  root = make(layout)
  split = touch(root / FULL[layout] / "validation", "bad/7.png")
  wanted = "validation images must be normal"
  expect_error(layout, root, split / "bad", wanted, split / "good")


@pytest.mark.parametrize(
  ("layout", "folder", "good", "bad"),
  [
    ("btad", "good", "ok", "ko"),
    ("btad", "", "ok", "ko"),
    ("mvtec_ad2", "ok", "good", "bad"),
  ],
)
def test_test_images_lie_where_their_label_is_known(
  layout, folder, good, bad, make
):
  root = make(layout)
  test = root / FULL[layout] / TEST[layout]
  touch(test / folder, "7.png")
  found = f"{test / folder} holds images, e.g. 7.png"
  expect_error(layout, root, found, f"{test / good} or {test / bad}")


def test_btad_two_masks_for_one_image(make):
  root = make("btad")
  mask = "ground_truth/ko/0000.bmp"
  category = touch(root / "02", mask)
  expect_error("btad", root, category / mask, "two masks", "Remove")


def test_loco_masks_beside_their_folders(make):
  root = make("mvtec_loco")
  touch(root, "nuts/ground_truth/logical_anomalies/007_mask.png")
  truth = root / "nuts" / "ground_truth" / "logical_anomalies"
  expect_error("mvtec_loco", root, truth, "007_mask.png", "set `layout`=mvtec")


def test_loco_folder_without_masks(make):
  root = make("mvtec_loco")
  folder = root / "nuts" / "ground_truth" / "structural_anomalies" / "001"
  folder.mkdir()
  expect_error("mvtec_loco", root, f"{folder} has no masks", "000.png")


def test_loco_folders_of_masks_that_all_belong_to_nothing(make):
  root = make("mvtec_loco")
  truth = root / "nuts" / "ground_truth" / "structural_anomalies"
  (truth / "000").rename(truth / "000_gt")
  expect_error("mvtec_loco", root, truth, "000_gt", "names like 000 for")


def test_loco_two_images_for_one_folder_of_masks(make):
  root = make("mvtec_loco")
  touch(root, "nuts/test/logical_anomalies/000.jpg")
  png = root / "nuts" / "test" / "logical_anomalies" / "000.png"
  expect_error("mvtec_loco", root, png, png.with_suffix(".jpg"), "Rename")
