"""A file of rows counts a row only when all of it is there."""

import errno
import multiprocessing
import os
import pickle
import time

import ml_dtypes
import numpy as np
import pytest
from absl import logging

from inp_former_jax.data.row_file import CacheError, RowFile

SHAPE = (30, 50)


@pytest.fixture
def warnings(monkeypatch):
  found = []
  monkeypatch.setattr(
    logging, "warning", lambda text, *values: found.append(text % values)
  )
  return found


def open_rows(path, key=None, count=5, shape=SHAPE, dtype=np.float32):
  return RowFile(path, key or {}, count=count, shape=shape, dtype=dtype)


def row(index, dtype=np.float32):
  values = np.random.default_rng(index).normal(size=SHAPE)
  return values.astype(dtype)


@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16, np.uint8])
def test_rows_survive_in_any_order(tmp_path, dtype):
  rows = open_rows(tmp_path / "new" / "a.rows", dtype=dtype)
  assert rows.read(3) is None and not rows.has(3)
  for index in (3, 0):
    rows.write(index, row(index, dtype))
  again = pickle.loads(pickle.dumps(open_rows(rows.path, dtype=dtype)))
  for index in (0, 3):
    assert again.has(index)
    np.testing.assert_array_equal(again.read(index), row(index, dtype))
  assert not any(again.has(i) for i in (1, 2, 4))


def test_a_damaged_row_is_named_and_no_longer_counts(tmp_path, warnings):
  rows = open_rows(tmp_path / "a.rows")
  for index in range(5):
    rows.write(index, row(index))
  with open(rows.path, "r+b") as file:
    file.seek(2 * rows.row_bytes + 1000)
    file.write(b"x")
  assert rows.read(2) is None and not rows.has(2)
  assert str(rows.path) in warnings[0] and "row 2" in warnings[0]
  np.testing.assert_array_equal(rows.read(1), row(1))
  rows.write(2, row(2))
  np.testing.assert_array_equal(rows.read(2), row(2))


def test_a_row_of_another_place_or_another_key_does_not_count(
  tmp_path, warnings
):
  rows = open_rows(tmp_path / "a.rows", {"crop": 70})
  rows.write(0, row(0))
  content = rows.path.read_bytes()
  first = content[: rows.row_bytes]
  rows.path.write_bytes(first * 5)
  rows = open_rows(rows.path, {"crop": 70})
  assert rows.read(1) is None and rows.read(0) is not None
  assert open_rows(rows.path, {"crop": 84}).read(0) is None
  assert len(warnings) == 2


def test_a_truncated_file_is_named_and_thrown_away(tmp_path, warnings):
  rows = open_rows(tmp_path / "a.rows")
  rows.write(0, row(0))
  os.truncate(rows.path, 3 * rows.row_bytes)
  assert rows.read(4) is None  # while it is open
  again = open_rows(rows.path)
  assert not again.has(0)
  assert again.path.stat().st_size == 5 * rows.row_bytes
  assert str(rows.path) in warnings[0] and "thrown away" in warnings[0]


def test_a_full_disk_leaves_no_half_row(tmp_path, monkeypatch):
  rows = open_rows(tmp_path / "a.rows")
  rows.write(0, row(0))
  original = os.pwrite

  def pwrite(file, data, place):
    if len(data) > 1000:
      return original(file, data[:1000], place)
    raise OSError(errno.ENOSPC, "No space left on device")

  monkeypatch.setattr(os, "pwrite", pwrite)
  with pytest.raises(CacheError, match="No space left.*`cache_dir`"):
    rows.write(1, row(1))
  assert rows.read(1) is None
  np.testing.assert_array_equal(rows.read(0), row(0))


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
  (tmp_path / "file").write_text("")
  with pytest.raises(CacheError, match="file/a.rows.*`cache_dir`"):
    open_rows(tmp_path / "file" / "a.rows")


def test_a_row_of_another_kind_is_refused(tmp_path):
  with pytest.raises(ValueError, match="float64"):
    open_rows(tmp_path / "a.rows").write(0, row(0, np.float64))


def fill(rows, indices):
  for index in indices:
    if rows.read(index) is None:
      rows.write(index, row(index))


def test_processes_fill_a_file_together(tmp_path):
  rows = open_rows(tmp_path / "a.rows", count=60)
  context = multiprocessing.get_context("spawn")
  orders = [range(60), range(59, -1, -1)]
  processes = [context.Process(target=fill, args=(rows, o)) for o in orders]
  for process in processes:
    process.start()
  for process in processes:
    process.join()
    assert process.exitcode == 0
  for index in range(60):
    np.testing.assert_array_equal(rows.read(index), row(index))


def fill_endlessly(rows):
  while True:
    for index in range(rows.count):
      rows.write(index, row(index))


def test_a_killed_process_leaves_whole_rows_or_none(tmp_path, warnings):
  rows = open_rows(tmp_path / "a.rows", count=2000)
  context = multiprocessing.get_context("spawn")
  process = context.Process(target=fill_endlessly, args=(rows,))
  process.start()
  while not rows.has(20):
    assert process.is_alive()
    time.sleep(0.001)
  process.kill()
  process.join()
  found = [rows.read(index) for index in range(2000)]
  held = [index for index, values in enumerate(found) if values is not None]
  assert held == list(range(len(held))) and 20 < len(held)
  for index in held:
    np.testing.assert_array_equal(found[index], row(index))
  assert not warnings
