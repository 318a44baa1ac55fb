"""The demo data set: its layout, its masks, its pictures and its refusals."""

import hashlib
import json
import pathlib

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from inp_former_jax.data.demo import parts

_SMALL = dict(
  image_size=64, train=3, test_good=2, test_per_defect=2, validation=2
)
_ONE = dict(
  image_size=64, train=1, test_good=1, test_per_defect=1, validation=1
)
EARLIER = "53cc03fcf6f9029d53d86871da3b4abf16b1ae853e503037f9be001d303709d3"
_ALL_DEFECTS = [
  (category, defect)
  for category in parts.CATEGORIES
  for defect in parts.DEFECTS[category]
]


def _digests(root: pathlib.Path) -> dict[str, str]:
  return {
    str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
    for path in sorted(root.rglob("*"))
    if path.is_file()
  }


@pytest.fixture(scope="module")
def written(tmp_path_factory):
  root = tmp_path_factory.mktemp("demo") / "demo_data"
  return parts.write_demo_dataset(root, **_SMALL)


def test_layout_and_counts(written):
  assert {path.name for path in written.iterdir()} == {
    "demo.json",
    *parts.CATEGORIES,
  }
  for category in parts.CATEGORIES:
    folder = written / category
    assert len(list((folder / "train/good").iterdir())) == 3
    assert len(list((folder / "test/good").iterdir())) == 2
    assert len(list((folder / "validation/good").iterdir())) == 2
    defects = set(parts.DEFECTS[category])
    kinds = {path.name for path in (folder / "test").iterdir()}
    assert kinds == {"good", *defects}
    assert {p.name for p in (folder / "ground_truth").iterdir()} == defects
    for defect in defects:
      pictures = sorted((folder / "test" / defect).iterdir())
      masks = sorted((folder / "ground_truth" / defect).iterdir())
      assert [path.name for path in pictures] == ["000.png", "001.png"]
      assert [path.name for path in masks] == ["000_mask.png", "001_mask.png"]


def test_files_hold_the_samples(written):
  category, defect = _ALL_DEFECTS[-1]
  split = 2 + parts.DEFECTS[category].index(defect)
  image, mask = parts.make_sample(
    category, defect, split=split, index=1, image_size=64
  )
  with Image.open(written / category / "test" / defect / "001.png") as file:
    assert file.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(file), image)
  path = written / category / "ground_truth" / defect / "001_mask.png"
  with Image.open(path) as file:
    assert file.mode == "L"
    np.testing.assert_array_equal(np.asarray(file), mask)


def test_same_seed_same_bytes_other_seed_others(written, tmp_path):
  again = parts.write_demo_dataset(tmp_path / "again", **_SMALL)
  assert _digests(again) == _digests(written)
  other = parts.write_demo_dataset(tmp_path / "other", seed=1, **_SMALL)
  ours, theirs = _digests(written), _digests(other)
  assert ours.keys() == theirs.keys()
  pictures = [name for name in ours if "ground_truth" not in name]
  assert all(ours[name] != theirs[name] for name in pictures)


def test_pictures_do_not_depend_on_how_many_there_are(written, tmp_path):
  fewer = _digests(parts.write_demo_dataset(tmp_path / "fewer", **_ONE))
  more = _digests(written)
  del fewer["demo.json"]
  assert fewer.items() <= more.items()


def test_validation_pictures_change_no_other(written, tmp_path):
  without = _digests(
    parts.write_demo_dataset(tmp_path / "demo", **_SMALL | {"validation": 0})
  )
  files = _digests(written)
  for digests in (without, files):
    del digests["demo.json"]
  added = {
    f"{category}/validation/good/00{i}.png"
    for category in parts.CATEGORIES
    for i in range(2)
  }
  assert files.keys() - without.keys() == added
  assert without.items() <= files.items()


def test_the_pictures_are_those_of_earlier_versions(written):
  # Of the first release: the metrics in the documents were measured on them.
  names = [n for n in sorted(_digests(written)) if n.endswith("png")]
  whole = hashlib.sha256()
  for name in names:
    if "/validation/" not in name:
      with Image.open(written / name) as image:
        whole.update(np.asarray(image).tobytes())
  assert whole.hexdigest() == EARLIER


def test_a_data_set_without_validation_pictures_is_left_as_it_is(tmp_path):
  root = parts.write_demo_dataset(tmp_path / "demo", **_ONE | {"validation": 0})
  record = root / "demo.json"
  settings = json.loads(record.read_text())
  del settings["validation"]  # as it was recorded before there were any
  record.write_text(json.dumps(settings))
  before = _digests(root)
  assert parts.write_demo_dataset(root, **_ONE) == root
  assert _digests(root) == before
  with pytest.raises(ValueError, match="another demo data set"):
    parts.write_demo_dataset(root, **_ONE | {"train": 2})


def test_no_two_pictures_are_the_same(written):
  digests = [
    digest
    for name, digest in _digests(written).items()
    if "ground_truth" not in name
  ]
  assert len(set(digests)) == len(digests)


@pytest.mark.parametrize("category", parts.CATEGORIES)
def test_good_samples_vary_a_little_and_have_empty_masks(category):
  samples = [parts.make_sample(category, index=i) for i in range(3)]
  for image, mask in samples:
    assert image.shape == (256, 256, 3) and image.dtype == np.uint8
    assert mask.shape == (256, 256) and mask.dtype == np.uint8
    assert not mask.any()
    # neither crushed nor blown out
    assert 20 < image.mean() < 200
    assert (image == 255).mean() < 0.02
  first, second, third = (image.astype(float) for image, _ in samples)
  for one, other in ((first, second), (second, third)):
    assert 2.0 < np.abs(one - other).mean() < 60.0
    assert abs(one.mean() - other.mean()) < 25.0


@pytest.mark.parametrize("category,defect", _ALL_DEFECTS)
def test_defect_is_where_its_mask_is_and_can_be_seen(category, defect):
  areas = []
  for index in range(4):
    place = dict(seed=3, split=9, index=index)
    good, _ = parts.make_sample(category, **place)
    image, mask = parts.make_sample(category, defect, **place)
    assert mask.shape == image.shape[:2] and mask.dtype == np.uint8
    assert set(np.unique(mask)) == {0, 255}
    inside = mask == 255
    change = np.abs(image.astype(int) - good.astype(int)).max(axis=-1)
    assert not change[~inside].any()
    assert (change[inside] > 0).mean() > 0.85
    assert change[inside].mean() > 15
    areas.append(inside.mean())
  assert 0.0015 < min(areas) and max(areas) < 0.05
  assert len(set(areas)) > 1


@pytest.mark.parametrize("category,defect", _ALL_DEFECTS)
def test_masks_have_no_specks_and_survive_the_centre_crop(category, defect):
  split = 2 + parts.DEFECTS[category].index(defect)
  for index in range(24):
    _, mask = parts.make_sample(category, defect, split=split, index=index)
    regions, _ = ndimage.label(mask, np.ones((3, 3)))
    assert np.bincount(regions[mask > 0])[1:].min() >= 12
    kept = mask[16:240, 16:240]  # 224 of 256, as the demo's configuration
    assert np.count_nonzero(kept) >= 0.9 * np.count_nonzero(mask)


def test_specks_are_whole_regions_across_corners_too():
  mask = np.zeros((256, 256), bool)
  mask[10:13, 10:13] = mask[13, 13:16] = True  # 12 pixels by a corner
  mask[40, 40:51] = True  # 11
  left = parts._without_specks(mask)
  assert left[:20, :20].sum() == 12 and left.sum() == 12
  smaller = np.zeros((128, 128), bool)
  smaller[5, 5:8], smaller[9, 5:7] = True, True
  assert parts._without_specks(smaller).sum() == 3


def test_a_defect_outside_the_window_is_drawn_again(monkeypatch):
  draw = parts.cloth.DEFECTS["stain"]
  calls = []

  def miss_twice(cloth, rng):
    calls.append(1)
    spoilt, coverage = draw(cloth, rng)
    if len(calls) < 3:
      coverage[:, :20] = 1.0
    return spoilt, coverage

  monkeypatch.setitem(parts.cloth.DEFECTS, "stain", miss_twice)
  _, mask = parts.make_sample("cloth", "stain")
  assert len(calls) >= 3 and not mask[:, :16].any()
  monkeypatch.setitem(
    parts.cloth.DEFECTS,
    "stain",
    lambda cloth, rng: (cloth.radiance, np.ones_like(cloth.x)),
  )
  with pytest.raises(RuntimeError, match="found no place"):
    parts.make_sample("cloth", "stain")


@pytest.mark.parametrize("image_size", [64, 100, 392])
def test_any_image_size(image_size):
  for category in parts.CATEGORIES:
    image, mask = parts.make_sample(
      category, parts.DEFECTS[category][0], image_size=image_size
    )
    assert image.shape == (image_size, image_size, 3)
    assert mask.shape == (image_size, image_size) and mask.any()


def test_image_size_does_not_change_the_part():
  for category in parts.CATEGORIES:
    small, large = (
      parts.make_sample(category, image_size=size)[0] for size in (64, 256)
    )
    reduced = large.reshape(64, 4, 64, 4, 3).mean(axis=(1, 3))
    difference = np.abs(reduced - small).mean()
    assert difference < 0.5 * small.std()


def test_writing_again_leaves_the_files_alone(written):
  before = {path: path.stat().st_mtime_ns for path in written.rglob("*")}
  assert parts.write_demo_dataset(written, **_SMALL) == written
  after = {path: path.stat().st_mtime_ns for path in written.rglob("*")}
  assert before == after


def test_an_empty_folder_is_filled_and_nothing_is_left_beside_it(tmp_path):
  root = tmp_path / "demo_data"
  root.mkdir()
  parts.write_demo_dataset(root, **_ONE)
  assert [path.name for path in tmp_path.iterdir()] == ["demo_data"]
  recorded = json.loads((root / "demo.json").read_text())
  assert recorded.pop("format_version") >= 1
  assert recorded == {"seed": 0, **_ONE}


def test_refuses_another_demo_data_set(written):
  before = _digests(written)
  with pytest.raises(ValueError, match="another demo data set.*seed") as error:
    parts.write_demo_dataset(written, seed=7, **_SMALL)
  assert str(written) in str(error.value)
  assert _digests(written) == before


def test_refuses_a_folder_with_other_data(tmp_path):
  (tmp_path / "precious.txt").write_text("mine")
  with pytest.raises(ValueError, match="no demo.json.*precious.txt"):
    parts.write_demo_dataset(tmp_path, **_SMALL)
  assert [path.name for path in tmp_path.iterdir()] == ["precious.txt"]


def test_refuses_a_file(tmp_path):
  (tmp_path / "demo").write_text("")
  with pytest.raises(ValueError, match="is a file"):
    parts.write_demo_dataset(tmp_path / "demo", **_SMALL)


def _overtake(monkeypatch, root, **winner):
  """Lets another writer finish `root` while the next one is at work."""
  write_pictures = parts._write_pictures

  def write_and_be_overtaken(folder, settings):
    monkeypatch.setattr(parts, "_write_pictures", write_pictures)
    write_pictures(folder, settings)
    parts.write_demo_dataset(root, **winner)
    (root / "winner").touch()

  monkeypatch.setattr(parts, "_write_pictures", write_and_be_overtaken)


def test_loser_of_a_race_keeps_the_winners_files(tmp_path, monkeypatch):
  root = tmp_path / "demo_data"
  _overtake(monkeypatch, root, **_SMALL)
  assert (parts.write_demo_dataset(root, **_SMALL) / "winner").exists()
  assert [path.name for path in tmp_path.iterdir()] == ["demo_data"]


def test_loser_of_a_race_refuses_other_files(tmp_path, monkeypatch):
  root = tmp_path / "demo_data"
  _overtake(monkeypatch, root, seed=5, **_SMALL)
  with pytest.raises(ValueError, match="another demo data set"):
    parts.write_demo_dataset(root, **_SMALL)
  assert (root / "winner").exists()
  assert [path.name for path in tmp_path.iterdir()] == ["demo_data"]


def test_failure_leaves_nothing_behind(tmp_path, monkeypatch):
  def fail(pixels, path):
    raise OSError("disk full")

  monkeypatch.setattr(parts, "_save_png", fail)
  with pytest.raises(OSError, match="disk full"):
    parts.write_demo_dataset(tmp_path / "demo_data", **_SMALL)
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
  "arguments,message",
  [
    (dict(category="gear"), "category is 'gear', expected one of washer"),
    (dict(category="cloth", defect="dent"), "defect is 'dent'.*hole"),
    (dict(category="cloth", image_size=32), "image_size is 32"),
  ],
)
def test_make_sample_names_what_is_wrong(arguments, message):
  with pytest.raises(ValueError, match=message):
    parts.make_sample(**arguments)


@pytest.mark.parametrize("name", ["seed", "train", "image_size"])
def test_write_names_what_is_wrong(tmp_path, name):
  with pytest.raises(ValueError, match=f"{name} is -1, expected"):
    parts.write_demo_dataset(tmp_path / "demo", **{name: -1})
