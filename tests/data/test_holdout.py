"""Holding normal images out of training: which ones, and how many."""

import dataclasses
import pathlib

import pytest

from inp_former_jax.data.holdout import MOST, first_by_hash, hold_out, rank
from inp_former_jax.data.image_files import StoredFile
from inp_former_jax.data.layouts.folder import read_folder
from inp_former_jax.data.records import DEFECTIVE, NORMAL, Dataset, Record
from tests.data.layouts.test_folder import numbered
from tests.data.layouts.test_mvtec import touch


def records(category: str, count: int, label: int = NORMAL, start: int = 0):
  return tuple(
    Record(pathlib.Path(f"/{category}/{i:04d}.png"), category, label, "good")
    for i in range(start, start + count)
  )


def names(found) -> list[str]:
  return [record.image.name for record in found]


@pytest.mark.parametrize(
  "count, share, expected",
  [
    (40, 0.1, 4),
    (49, 0.1, 4),
    (9, 0.1, 0),
    (100, 0.29, 29),  # 0.29 * 100 is 28.999999999999996
    (40, 0.0, 0),
    (3000, 0.1, MOST),
    (1, 0.99, 0),
    (2, 0.99, 1),
  ],
)
def test_share_is_rounded_down_and_capped(count, share, expected):
  dataset = Dataset("d", records("nut", count), ())
  held = hold_out(dataset, share)
  assert len(held.validation) == expected
  assert len(held.train) == count - expected
  assert not set(held.train) & set(held.validation)
  assert set(held.train) | set(held.validation) == set(dataset.train)
  assert list(held.train) == sorted(held.train, key=lambda r: r.image)


def test_the_smallest_hashes_are_held_out():
  dataset = Dataset("d", records("nut", 40), ())
  held = hold_out(dataset, 0.1)
  largest = max(rank(record.image) for record in held.validation)
  assert largest < min(rank(record.image) for record in held.train)
  # The draw is part of what a run is: it must never change.
  held_out = ["0015.png", "0019.png", "0027.png", "0030.png"]
  assert names(held.validation) == held_out


def test_every_category_gives_its_share():
  dataset = Dataset("d", records("nut", 40) + records("bolt", 20), ())
  held = hold_out(dataset, 0.1)
  found = [record.category for record in held.validation]
  assert found == 4 * ["nut"] + 2 * ["bolt"]
  alone = hold_out(Dataset("d", records("bolt", 20), ()), 0.1)
  assert alone.validation == held.validation[4:]


def test_validation_images_of_the_data_set_are_used_instead():
  own = records("nut", 5, start=900)
  dataset = Dataset("d", records("nut", 40) + records("bolt", 20), (), own)
  held = hold_out(dataset, 0.1)
  assert held.validation[:5] == own
  assert {record.category for record in held.validation[5:]} == {"bolt"}


def test_only_normal_images_are_held_out_and_counted():
  defective = records("nut", 60, DEFECTIVE, start=500)
  dataset = Dataset("d", records("nut", 40) + defective, ())
  held = hold_out(dataset, 0.1)
  assert len(held.validation) == 4
  assert {record.label for record in held.validation} == {NORMAL}
  assert set(defective) <= set(held.train)


def test_few_images_are_kept_for_training():
  dataset = Dataset("d", records("nut", 40) + records("bolt", 20), ())
  assert len(hold_out(dataset, 0.5, per_category=15).train) == 35
  assert len(hold_out(dataset, 0.1, in_total=54).train) == 54
  assert hold_out(dataset, 0.1, in_total=55) == dataset


def test_the_rest_of_the_data_set_is_unchanged():
  test, unlabelled = records("nut", 3, start=70), records("nut", 2, start=80)
  dataset = Dataset("d", records("nut", 40), test, unlabelled=unlabelled)
  held = hold_out(dataset, 0.2)
  kept = dataclasses.replace(held, train=dataset.train, validation=())
  assert kept == dataset


def test_the_draw_depends_on_the_name_alone():
  images = [record.image for record in records("nut", 40)]
  moved = [pathlib.Path("/elsewhere") / image.name for image in images]
  stored = [
    StoredFile("/tfds", "train", i, f"x/{image.name}")
    for i, image in enumerate(images)
  ]
  first = [image.name for image in first_by_hash(images, 7)]
  for others in (moved, stored, images[::-1]):
    assert [image.name for image in first_by_hash(others, 7)] == first
  assert rank(pathlib.Path("/a/byte\udcff.png")) < 1  # bytes that are no text


def test_test_images_of_the_folder_layout_are_drawn_first(tmp_path):
  root = touch(tmp_path / "nut", *numbered("normal", 100), "defect/a.png")
  dataset = read_folder(root)
  held = hold_out(dataset, 0.1)
  tested = [rank(r.image) for r in dataset.test if r.label == NORMAL]
  kept = [rank(r.image) for r in held.validation]
  trained = [rank(r.image) for r in held.train]
  assert max(tested) < min(kept) and max(kept) < min(trained)
  assert len(kept) == len(dataset.train) // 10
