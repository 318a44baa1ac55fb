"""TFDS data sets that are not there, not whole, or not ours: every error."""

import dataclasses
import os
import pathlib
import shutil
import sys

import filelock
import pytest
from PIL import Image

from inp_former_jax.data import loader, transforms
from inp_former_jax.data.cache_key import cache_key
from inp_former_jax.data.errors import DataError
from inp_former_jax.data.records import Dataset, Record
from inp_former_jax.data.tfds import builder
from inp_former_jax.data.tfds.builder import build_tfds
from inp_former_jax.data.tfds.source import INDEX, VERSION, read_tfds

pytest.importorskip("tensorflow_datasets")
pytest.importorskip("array_record")

PREPROCESSING = transforms.Preprocessing((14, 28), (14, 28))


@pytest.fixture
def small(tmp_path) -> tuple[Dataset, pathlib.Path, pathlib.Path]:
  """A data set of one image, its root, and the folder to build it in."""
  image = tmp_path / "files" / "0.png"
  image.parent.mkdir()
  Image.effect_noise((40, 40), 90).save(image)
  dataset = Dataset("small", (Record(image, "nut", 0, "good"),), ())
  return dataset, image.parent, tmp_path / "data"


def expect_error(function, *arguments, kind=DataError) -> str:
  with pytest.raises(kind) as caught:
    function(*arguments)
  message = str(caught.value)
  assert "\n" not in message
  return message


def test_building_again_leaves_the_same_records_as_they_are(small):
  folder = build_tfds(*small).folder
  before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
  assert not build_tfds(*small).is_new
  assert before == {path: path.stat().st_mtime_ns for path in folder.iterdir()}


def test_a_data_set_built_anew_is_opened_anew(small):
  dataset, _, data_dir = small
  image = dataset.train[0].image
  keys = []
  for colour in (1, 2):
    Image.new("L", (40, 40), colour).save(image)
    folder = build_tfds(*small).folder
    (record,) = read_tfds("small", data_dir).train
    assert record.image.open().read() == image.read_bytes()
    keys.append(cache_key([record], PREPROCESSING))
    shutil.rmtree(folder)
  assert keys[0] != keys[1]  # caches of the images are others too


def test_another_data_set_of_that_name_is_not_overwritten(small):
  dataset, root, data_dir = small
  before = read_index_text(build_tfds(*small).folder)
  renamed = dataclasses.replace(dataset.train[0], category="bolt")
  other = dataclasses.replace(dataset, train=(renamed,))
  message = expect_error(build_tfds, other, root, data_dir)
  assert f"{data_dir / 'small'} holds another data set" in message
  assert "another --name, or remove" in message
  assert before == read_index_text(data_dir / "small" / VERSION)
  assert build_tfds(other, root, data_dir, "other").is_new


def read_index_text(folder: pathlib.Path) -> str:
  return (folder / INDEX).read_text()


def test_what_something_else_wrote_is_not_overwritten(small):
  dataset, root, data_dir = small
  (data_dir / "small" / "3.0.1").mkdir(parents=True)
  message = expect_error(build_tfds, *small)
  assert "holds 3.0.1, which" in message and "did not write" in message
  message = expect_error(read_tfds, "small", data_dir)
  assert "was not written by" in message and "it has 3.0.1" in message


def test_a_build_that_fails_leaves_nothing_that_counts(small):
  data_dir = small[2]
  real_write = builder._write_examples

  def write(*arguments):
    real_write(*arguments)
    raise KeyboardInterrupt

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(builder, "_write_examples", write)
    expect_error(build_tfds, *small, kind=KeyboardInterrupt)
  assert "no data set yet" in expect_error(read_tfds, "small", data_dir)
  # What a killed one leaves is in no one's way, either.
  (data_dir / "small" / f"incomplete.{VERSION}" / "rest").mkdir(parents=True)
  assert "no data set yet" in expect_error(read_tfds, "small", data_dir)
  folder = build_tfds(*small).folder
  assert [f.name for f in folder.parent.glob("[!.]*")] == [VERSION]


def test_two_builders_at_a_time(small):
  data_dir = small[2]
  (data_dir / "small").mkdir(parents=True)
  with filelock.FileLock(data_dir / "small" / ".building.lock"):
    message = expect_error(build_tfds, *small)
  assert "is being built by another process" in message


def test_a_bucket_cannot_be_written_to(small):
  message = expect_error(build_tfds, *small[:2], "gs://bucket/tfds")
  assert "gs://bucket/tfds is a bucket" in message and "copy" in message


def test_too_little_space(small, monkeypatch):
  usage = builder.shutil.disk_usage("/")._replace(free=7)
  monkeypatch.setattr(builder.shutil, "disk_usage", lambda _: usage)
  message = expect_error(build_tfds, *small)
  assert "needs" in message and "has only 7 left" in message


def test_a_named_pipe_is_refused_before_it_is_read(small):
  image = small[0].train[0].image
  image.unlink()
  os.mkfifo(image)
  assert f"{image} is a named pipe" in expect_error(build_tfds, *small)


def test_names_of_masks_that_are_not_utf_8(small, tmp_path):
  dataset, root, data_dir = small
  mask = pathlib.Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.png"))
  mask.touch()
  record = dataclasses.replace(dataset.train[0], masks=(mask,))
  other = dataclasses.replace(dataset, train=(record,))
  assert "not in UTF-8" in expect_error(build_tfds, other, root, data_dir)


def test_nothing_built_yet(tmp_path):
  for data_dir in (tmp_path, tmp_path / "absent dir"):
    message = expect_error(read_tfds, "parts", data_dir)
    assert f"{data_dir} holds no data set yet" in message
    assert "python -m inp_former_jax.data.tfds_builder --layout=" in message
  assert f"--data_dir='{data_dir}' --name=parts" in message


def test_unknown_name(small):
  data_dir = small[2]
  build_tfds(*small, "parts")
  message = expect_error(read_tfds, "prats", data_dir)
  assert "has no data set 'prats'; it has parts" in message
  assert "Did you mean 'parts'?" in message
  message = expect_error(read_tfds, "../parts", data_dir)
  assert "cannot be called '../parts'" in message
  message = expect_error(read_tfds, "parts", "")
  assert "`tfds_dir` is empty: set `tfds_dir`=FOLDER" in message


def test_a_file_cut_short_is_noticed_at_the_start(small):
  data_dir = small[2]
  folder = build_tfds(*small).folder
  shard = folder / "small-train.array_record-00000"
  os.truncate(shard, 70_000)
  message = expect_error(read_tfds, "small", data_dir)
  assert f"{shard} has 70000 bytes, expected " in message
  shard.unlink()
  assert "has no bytes" in expect_error(read_tfds, "small", data_dir)


@pytest.mark.parametrize(
  "damage",
  [
    lambda text: text[:-30],
    lambda text: text.replace('"train"', '"training"'),
    lambda text: text.replace('"view"', '"angle"'),
    lambda text: text.replace('"name"', '"title"'),
    lambda text: "",
  ],
)
def test_a_damaged_index_is_named(small, damage):
  index = build_tfds(*small).folder / INDEX
  index.write_text(damage(index.read_text()))
  message = expect_error(read_tfds, "small", small[2])
  assert str(index) in message and "damaged, or a newer" in message


def test_a_damaged_record_is_named(small):
  folder = build_tfds(*small).folder
  shard = folder / "small-train.array_record-00000"
  content = bytearray(shard.read_bytes())
  content[1000] ^= 255
  shard.write_bytes(content)
  (record,) = read_tfds("small", small[2]).train
  message = expect_error(transforms.load_image, record.image, PREPROCESSING)
  assert f"The data set in {folder} cannot be read" in message
  assert "record 0 of train" in message and "Copy the folder again" in message


@pytest.mark.parametrize("num_workers", [0, 1])
def test_an_image_that_cannot_be_decoded_is_named(small, tmp_path, num_workers):
  dataset, _, data_dir = small
  for name, content in {"a.png": b"no image", "b.png": b""}.items():
    (tmp_path / name).write_bytes(content)
    record = dataclasses.replace(dataset.train[0], image=tmp_path / name)
    other = Dataset("one", 2 * (record,), ())
    build_tfds(other, tmp_path, data_dir, name[0])
    batches = loader.training_batches(
      read_tfds(name[0], data_dir).train,
      PREPROCESSING,
      batch_size=2,
      seed=0,
      num_workers=num_workers,
    )
    message = expect_error(next, batches)
    batches.close()
    assert f"{name} in {data_dir / name[0] / VERSION} cannot be" in message
    assert f"cannot identify image file {name!r}" in message


@pytest.mark.parametrize("module", ["tensorflow_datasets", "array_record"])
def test_the_extra_is_not_installed(small, monkeypatch, module):
  monkeypatch.setitem(sys.modules, module, None)
  for name in [n for n in sys.modules if n.startswith("array_record.")]:
    monkeypatch.setitem(sys.modules, name, None)
  for call in ((build_tfds, *small), (read_tfds, "small", small[2])):
    message = expect_error(*call, kind=ImportError)
    assert 'pip install "inp-former-jax[tfds]"' in message
