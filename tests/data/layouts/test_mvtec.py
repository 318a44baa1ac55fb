"""Folders on disk -> records, and every folder that is not as it must be."""

import os
import pathlib

import pytest

from inp_former_jax.data.errors import DataError
from inp_former_jax.data.layouts.mvtec import read_mvtec


def touch(root: pathlib.Path, *names: str) -> pathlib.Path:
  """Empty files: reading a layout opens none of them."""
  for name in names:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).touch()
  return root


@pytest.fixture
def root(tmp_path):
  return touch(
    tmp_path / "parts",
    "nut/train/good/001.png",
    "nut/train/good/000.png",
    "nut/test/good/000.png",
    "nut/test/scratch/000.png",
    "nut/test/scratch/001.png",
    "nut/test/bent/000.png",
    "nut/ground_truth/scratch/000_mask.png",
    "nut/ground_truth/bent/000.png",
    "bolt/train/good/a.jpg",
    "bolt/test/good/b.jpg",
    "notes/readme.png",
  )


def expect_error(root, *parts, categories=()):
  with pytest.raises(DataError) as caught:
    read_mvtec(root, categories)
  for part in parts:
    assert str(part) in str(caught.value)


def test_reads_all_categories_sorted(root):
  dataset = read_mvtec(root)
  assert dataset.name == "parts"
  assert dataset.categories == ("bolt", "nut")
  assert [r.image.name for r in dataset.train] == [
    "a.jpg",
    "000.png",
    "001.png",
  ]
  assert all(
    (r.label, r.defect, r.masks) == (0, "good", ()) for r in dataset.train
  )


def test_what_only_looks_like_a_file_is_not_left_out(root):
  folder = root / "nut" / "train" / "good"
  os.mkfifo(folder / "pipe.png")
  (folder / "folder.png").mkdir()  # an empty folder is not in the way
  names = [r.image.name for r in read_mvtec(root, ["nut"]).train]
  assert names == ["000.png", "001.png", "pipe.png"]


def test_test_records_have_labels_defects_and_masks(root):
  test = read_mvtec(root, ["nut"]).test
  assert [(r.defect, r.label, r.image.name) for r in test] == [
    ("bent", 1, "000.png"),
    ("good", 0, "000.png"),
    ("scratch", 1, "000.png"),
    ("scratch", 1, "001.png"),
  ]
  truth = root / "nut" / "ground_truth"
  assert [r.masks for r in test] == [
    (truth / "bent" / "000.png",),
    (),
    (truth / "scratch" / "000_mask.png",),
    (),  # a defective image without mask counts image-wise only
  ]


def test_categories_are_kept_in_the_order_asked_for(root):
  assert read_mvtec(root, ["nut", "bolt"]).categories == ("nut", "bolt")
  assert read_mvtec(root, "nut").categories == ("nut",)


def test_root_may_be_one_category(root):
  dataset = read_mvtec(str(root / "nut"))
  assert dataset.categories == ("nut",)
  assert (len(dataset.train), len(dataset.test)) == (2, 4)


def test_a_category_may_be_called_train(tmp_path):
  root = touch(tmp_path, "train/train/good/0.png", "bus/train/good/0.png")
  assert read_mvtec(root).categories == ("bus", "train")


def test_missing_test_folder_means_no_test_records(tmp_path):
  root = touch(tmp_path, "nut/train/good/0.png")
  assert read_mvtec(root).test == ()


def test_extensions_in_any_case_and_other_files_ignored(tmp_path):
  names = ("a.PNG", "b.jpg", "c.Jpeg", "d.bmp", "e.tif", "f.TIFF")
  root = touch(tmp_path, *(f"nut/train/good/{name}" for name in names))
  touch(root, *(f"nut/train/good/{n}" for n in (".g.png", "h.txt", "Thumbs")))
  touch(root, ".cache/train/good/i.png", "nut/test/.x/j.png")
  (root / "nut/train/good/folder.png").mkdir()
  dataset = read_mvtec(root)
  assert tuple(r.image.name for r in dataset.train) == names
  assert dataset.test == ()


def test_mask_extension_may_differ_from_the_images(tmp_path):
  touch(tmp_path, "nut/train/good/0.png", "nut/test/bent/0.jpg")
  touch(tmp_path, "nut/test/bent/b_mask.jpg")
  touch(tmp_path, "nut/ground_truth/bent/0_mask.PNG")
  touch(tmp_path, "nut/ground_truth/bent/b_mask.bmp")
  masks = [r.masks[0].name for r in read_mvtec(tmp_path).test]
  assert masks == ["0_mask.PNG", "b_mask.bmp"]


def test_missing_root(tmp_path):
  expect_error(tmp_path / "x", tmp_path / "x", "does not exist", "train/good")


def test_root_is_a_file(tmp_path):
  touch(tmp_path, "x")
  expect_error(tmp_path / "x", tmp_path / "x", "is not a folder")


def test_empty_root(tmp_path):
  expect_error(tmp_path, tmp_path, "no folder at all", "train/good")


def test_root_in_another_layout(tmp_path):
  touch(tmp_path, "normal/a.png", "abnormal/b.png")
  expect_error(tmp_path, tmp_path, "abnormal, normal", "Point `root`")


@pytest.mark.parametrize(
  "part", ["test/bent", "ground_truth/bent", "train/bad"]
)
def test_category_without_train_good(root, part):
  touch(root, f"gear/{part}/0.png")
  good = root / "gear" / "train" / "good"
  expect_error(root, root / "gear", "category without train/good", good)
  assert read_mvtec(root, ["nut"]).categories == ("nut",)


def test_category_without_training_images(root):
  touch(root, "gear/train/good/readme.txt")
  expect_error(root, root / "gear" / "train" / "good", "no images", ".tiff")


def test_unknown_category_suggests_the_nearest(root):
  expect_error(root, "'nuts'", "Did you mean 'nut'?", categories=["nuts"])
  expect_error(root, "'zzz'", "bolt, nut", categories=["zzz"])


def test_two_images_for_one_mask(root):
  touch(root, "nut/test/scratch/000.jpg")
  folder = root / "nut" / "test" / "scratch"
  expect_error(root, folder / "000.png", folder / "000.jpg", "Rename")


def test_two_images_of_one_name_without_mask_are_fine(root):
  touch(root, "nut/test/scratch/001.jpg", "nut/train/good/000.jpg")
  assert len(read_mvtec(root, ["nut"]).test) == 5


@pytest.mark.parametrize("second", ["000.png", "000_mask.bmp"])
def test_two_masks_for_one_image(root, second):
  touch(root, f"nut/ground_truth/scratch/{second}")
  folder = root / "nut" / "ground_truth" / "scratch"
  expect_error(root, folder / second, folder / "000_mask.png", "two masks")


def test_masks_that_all_belong_to_nothing(root):
  truth = root / "nut" / "ground_truth" / "scratch"
  (truth / "000_mask.png").rename(truth / "000_gt.png")
  expect_error(root, truth, "000_gt.png", "000_mask.png")
