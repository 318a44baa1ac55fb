"""The layout of your own images: sound folders, and every wrong one."""

import pytest

from inp_former_jax.data.errors import DataError
from inp_former_jax.data.layouts.folder import read_folder
from inp_former_jax.data.layouts.registry import read_layout
from inp_former_jax.data.records import DEFECTIVE, NORMAL
from tests.data.layouts.test_mvtec import touch


def numbered(folder: str, count: int) -> list[str]:
  return [f"{folder}/{i:03d}.png" for i in range(count)]


@pytest.fixture
def root(tmp_path):
  return touch(
    tmp_path / "nut",
    *numbered("normal", 40),
    "defect/a.png",
    "defect/b.png",
    "defect/scratch/000.jpg",
    "defect/bent/000.jpg",
    "mask/a_mask.png",
    "mask/scratch/000.png",
  )


def expect_error(root, *parts, categories=()):
  with pytest.raises(DataError) as caught:
    read_folder(root, categories)
  for part in parts:
    assert str(part) in str(caught.value)


def names(records) -> list[str]:
  return [r.image.name for r in records]


def test_labels_defects_and_masks(root):
  dataset = read_folder(root)
  assert (dataset.name, dataset.categories) == ("nut", ("nut",))
  assert {(r.label, r.defect, r.masks) for r in dataset.train} == {
    (NORMAL, "good", ())
  }
  defects = [r for r in dataset.test if r.label == DEFECTIVE]
  assert [(r.defect, r.image.name, r.masks) for r in defects] == [
    ("defect", "a.png", (root / "mask" / "a_mask.png",)),
    ("defect", "b.png", ()),
    ("bent", "000.jpg", ()),
    ("scratch", "000.jpg", (root / "mask" / "scratch" / "000.png",)),
  ]


def test_is_a_layout(root):
  assert read_layout("folder", root) == read_folder(root)


def test_normal_images_alone_are_all_trained_on(tmp_path):
  root = touch(tmp_path, *numbered("normal", 10), "defect/readme.txt")
  dataset = read_folder(root)
  assert (len(dataset.train), dataset.test) == (10, ())


def test_about_every_fifth_normal_image_is_held_out(tmp_path):
  root = touch(tmp_path, *numbered("normal", 500), "defect/a.png")
  dataset = read_folder(root)
  good = [r for r in dataset.test if r.label == NORMAL]
  assert 75 < len(good) < 125
  assert sorted(names(dataset.train) + names(good)) == sorted(
    path.name for path in (root / "normal").iterdir()
  )


def test_adding_images_moves_no_other(root):
  before = {name: True for name in names(read_folder(root).train)}
  before |= {name: False for name in names(read_folder(root).test)}
  touch(root, *(f"normal/new{i}.png" for i in range(40)))
  trained = set(names(read_folder(root).train))
  assert all((name in trained) == where for name, where in before.items())


@pytest.mark.parametrize("count", range(2, 8))
def test_few_normal_images_are_neither_all_trained_nor_all_tested(
  tmp_path, count
):
  root = touch(tmp_path, *numbered("normal", count), "defect/a.png")
  dataset = read_folder(root)
  assert dataset.train
  assert {r.label for r in dataset.test} == {NORMAL, DEFECTIVE}


def test_the_only_normal_image_is_trained_on(tmp_path):
  dataset = read_folder(touch(tmp_path, "normal/a.png", "defect/a.png"))
  assert [len(dataset.train), len(dataset.test)] == [1, 1]


def test_folder_of_normal_test_images(root):
  touch(root, "test_normal/x.png")
  dataset = read_folder(root)
  assert len(dataset.train) == 40
  assert names(r for r in dataset.test if r.label == NORMAL) == ["x.png"]


def test_normal_test_images_without_defects(tmp_path):
  dataset = read_folder(touch(tmp_path, "ok/a.png", "test_ok/a.png"))
  assert [r.image.parent.name for r in dataset.test] == ["test_ok"]


@pytest.mark.parametrize("normal", ["normal", "good", "ok", "OK"])
@pytest.mark.parametrize("defect", ["anomaly", "bad", "NG", "abnormal"])
@pytest.mark.parametrize("mask", ["mask", "masks", "ground_truth"])
def test_other_names_of_the_folders(tmp_path, normal, defect, mask):
  root = touch(tmp_path, f"{normal}/a.png", f"{defect}/b.png", f"{mask}/b.png")
  (record,) = read_folder(root).test
  assert record.masks == (root / mask / "b.png",)


def test_masks_of_all_kinds_in_one_folder(tmp_path):
  touch(tmp_path, "ok/a.png", "ng/x/1.png", "ng/y/2.png", "mask/2_mask.png")
  masks = [r.masks for r in read_folder(tmp_path).test]
  assert masks == [(), (tmp_path / "mask" / "2_mask.png",)]


def test_several_categories(root):
  touch(root.parent, "bolt/good/a.png", "empty/readme.txt")
  assert read_folder(root.parent).categories == ("bolt", "nut")
  dataset = read_folder(root.parent, ["nut", "bolt"])
  assert dataset.categories == ("nut", "bolt")
  assert len(read_folder(root.parent, ["bolt"]).train) == 1


def test_images_and_nothing_else_are_normal(tmp_path):
  root = touch(tmp_path / "nut", "b.png", "a.JPG", "notes/readme.txt")
  dataset = read_folder(str(root))
  assert names(dataset.train) == ["a.JPG", "b.png"]
  assert (dataset.categories, dataset.test) == (("nut",), ())


def test_missing_root(tmp_path):
  expect_error(tmp_path / "x", tmp_path / "x", "does not exist", "normal/")


def test_root_is_a_file(tmp_path):
  touch(tmp_path, "x")
  expect_error(tmp_path / "x", "is not a folder")


def test_root_without_images(tmp_path):
  expect_error(tmp_path, tmp_path, "no folder at all", "Check `root`")
  touch(tmp_path, "first/readme.txt")
  expect_error(tmp_path, "the folders first", ".tiff")


def test_defects_without_normal_images(tmp_path):
  touch(tmp_path, "defect/a.png")
  expect_error(tmp_path, tmp_path / "normal", "has defect/ but no normal/")
  touch(tmp_path, "normal/readme.txt")
  expect_error(tmp_path, tmp_path / "normal", "no images", ".tiff")


def test_empty_folder_of_normal_test_images(root):
  touch(root, "test_normal/readme.txt")
  expect_error(root, root / "test_normal", "no images")


@pytest.mark.parametrize(
  "second", ["good", "bad", "ground_truth", "test_normal"]
)
def test_two_folders_for_the_same(root, second):
  touch(root, "test_ok/a.png", f"{second}/a.png")
  expect_error(root, root / second, "two names for the same folder")


def test_unknown_folder_of_images(root):
  touch(root, "notes/readme.txt")
  read_folder(root)
  touch(root, "defects/deep/a.png")
  expect_error(root, root / "defects", "Did you mean defect/?")


def test_images_beside_the_folders(root):
  touch(root, "lost.png")
  expect_error(root, root, "images beside its folder defect, e.g. lost.png")


def test_images_beside_the_categories(root):
  touch(root.parent, "lost.png")
  expect_error(root.parent, "lost.png", "beside its folder nut")
  (root.parent / "lost.png").unlink()
  touch(root.parent, "bolt/a.png")
  expect_error(root.parent, root.parent / "bolt", "none of those known")


@pytest.mark.parametrize("inner", ["normal/monday", "defect/bent/monday"])
def test_images_deeper_than_they_may_be(root, inner):
  touch(root, f"{inner}/a.png")
  expect_error(root, root / inner, "left out", (root / inner).parent)


def test_images_and_a_folder_of_images(tmp_path):
  touch(tmp_path, "a.png", "monday/b.png")
  expect_error(tmp_path, tmp_path / "monday", "left out")


def test_kind_of_defect_that_is_called_normal(root):
  touch(root, "defect/OK/a.png")
  expect_error(root, root / "defect" / "OK", "normal by its name")


def test_masks_that_belong_to_nothing(root):
  touch(root, "mask/bent/x.png")
  expect_error(root, root / "mask" / "bent", "x.png", "000_mask.png")


def test_two_images_of_two_kinds_for_one_mask(root):
  touch(root, "defect/x/a.png")
  expect_error(root, root / "defect" / "x" / "a.png", root / "defect" / "a.png")


def test_unknown_category_suggests_the_nearest(root):
  expect_error(root, "'nuts'", "Did you mean 'nut'?", categories=["nuts"])


def test_list_goes_before_folders(root):
  (root / "split.csv").write_text("image\nnormal/000.png\n")
  assert names(read_folder(root).train) == ["000.png"]
