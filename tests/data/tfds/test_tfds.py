"""A TFDS data set in place of the files: the same run, to the last bit."""

import dataclasses
import itertools
import json
import pathlib
import pickle
import socket
import subprocess
import sys
from concurrent import futures

import numpy as np
import pytest
from PIL import Image

from inp_former_jax.data import loader, transforms
from inp_former_jax.data.image_files import StoredFile
from inp_former_jax.data.layouts.registry import read_layout
from inp_former_jax.data.masks import load_mask
from inp_former_jax.data.records import NON_ZERO, Dataset, Record
from inp_former_jax.data.tfds import builder
from inp_former_jax.data.tfds.builder import build_tfds, tfds_name
from inp_former_jax.data.tfds.source import INDEX, VERSION, read_tfds

tfds = pytest.importorskip("tensorflow_datasets")
array_record_data_source = pytest.importorskip(
  "array_record.python.array_record_data_source"
)

PREPROCESSING = transforms.Preprocessing((42, 56), (28, 42))
SPLITS = ("train", "test", "validation", "unlabelled")


def save(path: pathlib.Path, pixels: np.ndarray, end: bytes = b"") -> None:
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.fromarray(pixels).save(path)
  with path.open("ab") as file:
    file.write(end)


def noise(rng: np.random.Generator, *shape: int) -> np.ndarray:
  return rng.integers(256, size=shape, dtype=np.uint8)


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> pathlib.Path:
  """Two categories; PNG and JPEG, colour and grey, 8 and 16 bits."""
  root = tmp_path_factory.mktemp("files") / "My Parts-2"
  rng = np.random.default_rng(0)
  for category in ("nut", "bolt"):
    folder = root / category
    for i in range(4):
      # Trailing zeros: numpy drops them where it takes bytes for a string.
      save(folder / f"train/good/{i:03}.png", noise(rng, 30, 40, 3), b"\0\0")
    save(folder / "test/good/000.jpg", noise(rng, 30, 40, 3))
    save(folder / "test/bent/000.jpg", noise(rng, 30, 40))
    save(folder / "test/bent/001.png", 257 * noise(rng, 30, 40).astype("u2"))
    save(folder / "test/no mask/é.bmp", noise(rng, 30, 40, 3))
    for i in range(2):
      mask = 255 * (noise(rng, 30, 40) > 200).astype(np.uint8)
      name = f"ground_truth/bent/{i:03}_mask.png"
      save(folder / name, mask, b"\0")
  return root


@pytest.fixture(scope="module")
def dataset(root) -> Dataset:
  """Categories not in the order of their names; every field, every split."""
  dataset = read_layout("mvtec", root, ("nut", "bolt"))
  first, *others = dataset.test
  masks = (*first.masks, root / "more.png")
  save(masks[1], np.eye(30, 40, dtype=np.uint8))
  first = dataclasses.replace(
    first, masks=masks, mask_values=NON_ZERO, sample="S1", view="C2"
  )
  return dataclasses.replace(
    dataset,
    train=dataset.train[1:-1],
    test=(first, *others),
    validation=dataset.train[:1],
    unlabelled=dataset.train[-1:],
  )


@pytest.fixture(scope="module")
def data_dir(dataset, root, tmp_path_factory) -> pathlib.Path:
  data_dir = tmp_path_factory.mktemp("tfds")
  build_tfds(dataset, root, data_dir, "parts")
  return data_dir


@pytest.fixture(scope="module")
def stored_dataset(data_dir) -> Dataset:
  return read_tfds("parts", data_dir)


def pairs(dataset: Dataset, other: Dataset) -> list[tuple[Record, Record]]:
  return [
    pair
    for split in SPLITS
    for pair in zip(getattr(dataset, split), getattr(other, split), strict=True)
  ]


def test_records_are_those_of_the_files(dataset, stored_dataset, root):
  assert stored_dataset.name == dataset.name == "My Parts-2"
  assert stored_dataset.categories == dataset.categories == ("nut", "bolt")
  found = pairs(dataset, stored_dataset)
  assert len(found) == 16
  for expected, record in found:
    files = [record.image, *record.masks]
    paths = [expected.image, *expected.masks]
    assert [file.name for file in files] == [path.name for path in paths]
    assert [file.stem for file in files] == [path.stem for path in paths]
    assert [root / file.path for file in files] == paths
    bare = {"image": root / "0.png", "masks": ()}
    assert dataclasses.replace(record, **bare) == dataclasses.replace(
      expected, **bare
    )


def test_bytes_are_those_of_the_files(dataset, stored_dataset):
  for expected, record in pairs(dataset, stored_dataset):
    assert record.image.open().read() == expected.image.read_bytes()
    for path, mask in zip(expected.masks, record.masks, strict=True):
      assert mask.open().read() == path.read_bytes()


def test_pixels_are_those_of_the_files(dataset, stored_dataset):
  def masks_of(record):
    return load_mask(
      record.masks,
      PREPROCESSING,
      32,
      values=record.mask_values,
      image_path=record.image,
    )

  for expected, record in pairs(dataset, stored_dataset):
    image = transforms.load_image(record.image, PREPROCESSING)
    from_file = transforms.load_image(expected.image, PREPROCESSING)
    np.testing.assert_array_equal(image, from_file)
    if record.masks:
      mask = masks_of(record)
      assert mask.any()
      np.testing.assert_array_equal(mask, masks_of(expected))


def assert_same_batches(found, expected):
  for one, other in zip(found, expected, strict=True):
    assert one.keys() == other.keys()
    for name in one:
      np.testing.assert_array_equal(one[name], other[name])


@pytest.mark.parametrize("num_workers", [0, 2])
def test_training_batches_are_those_of_the_files(
  dataset, stored_dataset, num_workers
):
  def batches(records, num_workers=0):
    found = loader.training_batches(
      records,
      PREPROCESSING,
      batch_size=2,
      seed=3,
      num_workers=num_workers,
      num_threads=4,
    )
    yield from itertools.islice(found, 7)
    found.close()

  found = list(batches(stored_dataset.train, num_workers))
  assert_same_batches(found, list(batches(dataset.train)))


@pytest.mark.parametrize("num_workers", [0, 2])
def test_evaluation_batches_are_those_of_the_files(
  dataset, stored_dataset, num_workers
):
  def batches(records, num_workers=0):
    return list(
      loader.evaluation_batches(
        records,
        PREPROCESSING,
        batch_size=3,
        evaluation_size=32,
        num_workers=num_workers,
        num_threads=4,
      )
    )

  found = batches(stored_dataset.test, num_workers)
  assert sum(batch["mask"].any((1, 2)).sum() for batch in found) == 4
  assert_same_batches(found, batches(dataset.test))


def test_many_threads_read_what_one_reads(dataset, root, tmp_path, monkeypatch):
  monkeypatch.setattr(builder, "SHARD_BYTES", 10_000)
  built = build_tfds(dataset, root, tmp_path, "shards")
  assert len(list(built.folder.glob("shards-train.array_record-*"))) > 1
  records = read_tfds("shards", tmp_path).train
  # The threads open the data set, too.
  with futures.ThreadPoolExecutor(16) as pool:
    found = list(pool.map(lambda r: r.image.open().read(), 50 * records))
  assert found == 50 * [record.image.read_bytes() for record in dataset.train]


def test_a_stored_file_pickles_small_and_unread(stored_dataset):
  records = pickle.loads(pickle.dumps(stored_dataset.train))
  assert records == stored_dataset.train
  assert len(pickle.dumps(100 * stored_dataset.test[:1])) < 3000


def test_reading_the_records_opens_no_image(data_dir, monkeypatch):
  opened = []
  monkeypatch.setattr(
    array_record_data_source, "ArrayRecordDataSource", opened.append
  )
  assert read_tfds("parts", data_dir).train
  assert not opened


def test_tfds_itself_reads_the_data_set_in_order(dataset, data_dir):
  source = tfds.data_source("parts", split="test", data_dir=data_dir)
  assert len(source) == len(dataset.test)
  for example, record in zip(source, dataset.test, strict=True):
    assert example["path"].decode() == "/".join(record.image.parts[-4:])
    assert example["category"].decode() == record.category
    assert example["label"] == record.label
    assert len(example["masks"]) == len(record.masks)


@pytest.mark.parametrize(
  "name, expected",
  [
    ("MVTec-AD", "mvtec_ad"),
    ("2024 parts", "data_2024_parts"),
    ("Größe", "gr_e"),
    ("部品", "data"),
  ],
)
def test_names_that_tfds_allows(name, expected):
  assert tfds_name(name) == expected


def command(*arguments: str) -> subprocess.CompletedProcess:
  module = "inp_former_jax.data.tfds_builder"
  return subprocess.run(
    [sys.executable, "-m", module, *arguments],
    capture_output=True,
    text=True,
  )


def test_command_says_what_it_wrote_and_how_to_use_it(root, tmp_path):
  options = ["--layout=mvtec", f"--root={root}", f"--data_dir={tmp_path}"]
  result = command(*options, "--categories=nut,bolt")
  assert result.returncode == 0, result.stderr
  assert result.stderr == ""
  size = sum(path.stat().st_size for path in root.glob("*/train/good/*"))
  first, train, test, use = result.stdout.splitlines()
  assert first == f"Wrote {tmp_path / 'my_parts_2' / VERSION}:"
  assert train.split() == ["train", "8", "records", f"{size:,}", "bytes"]
  assert test.split()[:3] == ["test", "8", "records"]
  flags = f"--config.data.tfds=my_parts_2 --config.data.tfds_dir={tmp_path}"
  assert use == f"Use it by {flags}"
  assert read_tfds("my_parts_2", tmp_path).categories == ("nut", "bolt")
  result = command(*options, "--categories=bolt")
  assert result.returncode == 1
  (line,) = result.stderr.splitlines()
  assert line.startswith("error: ") and "another data set of that name" in line


def test_no_tensorflow_and_no_tfds_for_files(root):
  """Reading files imports no part of the extra."""
  script = (
    "import sys; from inp_former_jax.data import loader; "
    "from inp_former_jax.data.layouts import registry; "
    f"registry.read_layout('mvtec', {str(root)!r}); "
    "assert not {'tensorflow', 'tensorflow_datasets'} & set(sys.modules)"
  )
  subprocess.run([sys.executable, "-c", script], check=True)


def test_index_has_a_line_for_each_record(data_dir, dataset):
  index = data_dir / "parts" / VERSION / INDEX
  header, *lines = index.read_text().splitlines()
  assert json.loads(header)["name"] == dataset.name
  assert len(lines) == sum(len(getattr(dataset, split)) for split in SPLITS)


def test_stored_file_says_where_it_is():
  file = StoredFile("/data/parts/1.0.0", "test", 3, "nut/test/good/a.b.png")
  assert (file.name, file.stem) == ("a.b.png", "a.b")
  assert str(file) == "nut/test/good/a.b.png in /data/parts/1.0.0"


def test_no_network_is_needed(dataset, root, tmp_path, monkeypatch):
  def connect(*_):
    raise AssertionError("somebody asks the network")

  monkeypatch.setattr(socket.socket, "connect", connect)
  monkeypatch.setattr(socket, "getaddrinfo", connect)
  build_tfds(dataset, root, tmp_path, "parts")
  record = read_tfds("parts", tmp_path).test[0]
  assert record.image.open().read()
