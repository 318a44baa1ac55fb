"""Cached images are those of the files, each decoded once."""

import os
import pathlib
import shutil

import numpy as np
import pytest
from absl import logging

from inp_former_jax.data import image_cache, loader
from inp_former_jax.data.cache_key import cache_folder, cache_key
from inp_former_jax.data.layouts.registry import read_layout
from inp_former_jax.data.row_file import CacheError
from inp_former_jax.data.transforms import Preprocessing, load_image

PREPROCESSING = Preprocessing((80, 80), (70, 56))


@pytest.fixture
def records(dataset_root, tmp_path):
  root = shutil.copytree(dataset_root, tmp_path / "parts")
  return read_layout("mvtec", root, ()).train


def cached(records, tmp_path, preprocessing=PREPROCESSING):
  folder = tmp_path / "cache"
  return image_cache.cached_images(records, preprocessing, folder, "parts/1")


@pytest.fixture
def decoded(monkeypatch):
  """The files that are decoded in this process."""
  found = []

  def load(file, preprocessing):
    found.append(file)
    return load_image(file, preprocessing)

  monkeypatch.setattr(image_cache, "load_image", load)
  return found


def take(records, batches, load=None, **options):
  iterator = loader.training_batches(
    records, PREPROCESSING, batch_size=4, seed=3, load=load, **options
  )
  found = [next(iterator) for _ in range(batches)]
  iterator.close()
  return found


def test_batches_are_those_of_the_files_and_each_is_decoded_once(
  records, tmp_path, decoded
):
  for _ in range(2):  # from the files, then from the cache
    found = take(records, 12, cached(records, tmp_path), augmented=True)
    for batch, expected in zip(
      found, take(records, 12, augmented=True), strict=True
    ):
      np.testing.assert_array_equal(batch["image"], expected["image"])
      np.testing.assert_array_equal(
        batch["augmentation"], expected["augmentation"]
      )
  everything = cached(records, tmp_path)
  for record in records:
    everything(record.image)
  # Threads may meet at a file, before it has been decoded.
  assert set(decoded) == {r.image for r in records}
  del decoded[:]
  for record in records:
    everything(record.image)
  assert decoded == []


def test_worker_processes_fill_it(records, tmp_path, decoded):
  # In batches ahead of what is taken, so an epoch is sure to be decoded.
  found = take(records, 9, cached(records, tmp_path), num_workers=2)
  for batch, expected in zip(found, take(records, 9), strict=True):
    np.testing.assert_array_equal(batch["image"], expected["image"])
  images = cached(records, tmp_path)
  held = [r.image for r in records if images.rows.has(images.numbers[r.image])]
  assert len(held) >= 16 and decoded == []


def test_a_changed_file_is_decoded_again(records, tmp_path):
  images = cached(records, tmp_path)
  images(records[0].image)
  shutil.copy(records[1].image, records[0].image)
  again = cached(records, tmp_path)
  assert again.rows.path != images.rows.path
  np.testing.assert_array_equal(
    again(records[0].image), load_image(records[1].image, PREPROCESSING)
  )


def test_the_key_has_everything_that_decides_the_pixels(records):
  key = cache_key(records, PREPROCESSING)
  assert key == cache_key(records, PREPROCESSING)
  keys = [
    key,
    cache_key(records, Preprocessing((80, 80), (70, 70))),
    cache_key(records, Preprocessing((81, 80), (70, 56))),
    cache_key(records[::-1], PREPROCESSING),
    cache_key(records[1:], PREPROCESSING),
    cache_key(records, PREPROCESSING, dtype="float32"),
  ]
  os.utime(records[2].image, (1, 1))
  keys.append(cache_key(records, PREPROCESSING))
  assert all(a != b for i, a in enumerate(keys) for b in keys[:i])


def test_a_full_disk_is_refused_with_the_figures(
  records, tmp_path, monkeypatch
):
  usage = shutil.disk_usage(tmp_path)._replace(free=1000)
  monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
  with pytest.raises(CacheError, match=r"needs 0.00 GB.*0.00 GB free"):
    cached(records, tmp_path)


def test_a_disk_that_fills_up_does_not_stop_training(
  records, tmp_path, monkeypatch
):
  warnings = []
  monkeypatch.setattr(logging, "warning", lambda *text: warnings.append(text))

  def write(index, row):
    raise CacheError("The disk is full.")

  images = cached(records, tmp_path)
  monkeypatch.setattr(images.rows, "write", write)
  for record in records[:3]:
    np.testing.assert_array_equal(
      images(record.image), load_image(record.image, PREPROCESSING)
    )
  assert len(warnings) == 1


def test_caches_lie_in_the_users_cache_folder_unless_named(
  tmp_path, monkeypatch
):
  monkeypatch.setenv("HOME", "/somebody")
  monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
  default = pathlib.Path("/somebody/.cache/inp_former_jax/training")
  assert cache_folder("") == default
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
  assert cache_folder("") == tmp_path / "inp_former_jax/training"
  assert cache_folder(tmp_path) == tmp_path
  assert cache_folder("~/mine") == pathlib.Path("/somebody/mine")


@pytest.mark.parametrize("cache_dir", ["", "~/mine"])
def test_without_a_home_the_error_names_the_argument(monkeypatch, cache_dir):
  def homeless(_):
    raise RuntimeError("Could not determine home directory.")

  monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
  monkeypatch.setattr(pathlib.Path, "expanduser", homeless)
  with pytest.raises(CacheError, match="`cache_dir` is.*home folder.*Set it"):
    cache_folder(cache_dir)
