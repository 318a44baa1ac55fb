"""New images in a folder, once they are complete."""

import os
import threading
import time

import numpy as np
import pytest
from PIL import Image

from inp_former_jax.data.errors import DataError
from inp_former_jax.data.watching import new_images


def save(path):
  Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(path)


def watch(folder, known=lambda path: False):
  return new_images(folder, known=known, interval=0.01, quiet=0.05)


def test_present_files_come_first_and_each_once(tmp_path):
  for name in ("b.png", "a.png"):
    save(tmp_path / name)
    os.utime(tmp_path / name, ns=(0, {"b.png": 1, "a.png": 2}[name] * 10**9))
  found = watch(tmp_path)
  assert [path.name for path in next(found)] == ["b.png", "a.png"]
  (tmp_path / "inner").mkdir()
  save(tmp_path / "inner" / "c.png")
  assert next(found) == [tmp_path / "inner" / "c.png"]


def test_a_file_that_still_grows_is_waited_for(tmp_path):
  path = tmp_path / "slow.png"
  save(path)
  content, done = path.read_bytes(), threading.Event()
  path.write_bytes(b"")

  def write():
    for end in range(0, len(content), 10):
      path.write_bytes(content[: end + 10])
      time.sleep(0.01)
    done.set()

  writer = threading.Thread(target=write)
  writer.start()
  assert next(watch(tmp_path)) == [path]
  writer.join()
  assert path.read_bytes() == content and done.is_set()


def test_a_file_that_was_replaced_is_new_again(tmp_path):
  save(tmp_path / "a.png")
  found = watch(tmp_path)
  assert len(next(found)) == 1
  Image.fromarray(np.zeros((50, 50, 3), np.uint8)).save(tmp_path / "a.png")
  assert next(found) == [tmp_path / "a.png"]


def test_known_files_are_left_out(tmp_path):
  save(tmp_path / "old.png")
  save(tmp_path / "new.png")
  found = watch(tmp_path, known=lambda path: path.name == "old.png")
  assert next(found) == [tmp_path / "new.png"]


def test_no_folder_is_an_error(tmp_path):
  with pytest.raises(DataError, match="no folder"):
    next(watch(tmp_path / "none"))


def test_excluded_files_never_count_even_if_they_change(tmp_path):
  own = tmp_path / "answers"
  own.mkdir()
  save(own / "a.png")
  save(tmp_path / "a.png")
  found = new_images(
    tmp_path,
    known=lambda path: False,
    excluded=lambda path: own in path.parents,
    interval=0.01,
    quiet=0.05,
  )
  assert next(found) == [tmp_path / "a.png"]
  for folder in (own, tmp_path):
    Image.fromarray(np.zeros((50, 50, 3), np.uint8)).save(folder / "a.png")
  assert next(found) == [tmp_path / "a.png"]


def test_a_folder_that_is_gone_for_a_while_is_told_once(tmp_path):
  folder, warnings = tmp_path / "in", []
  folder.mkdir()
  save(folder / "a.png")
  found = new_images(
    folder,
    known=lambda path: False,
    warn=warnings.append,
    interval=0.01,
    quiet=0.05,
  )
  next(found)
  folder.rename(tmp_path / "away")

  def come_back():
    time.sleep(0.3)
    save(tmp_path / "away" / "b.png")
    (tmp_path / "away").rename(folder)

  thread = threading.Thread(target=come_back)
  thread.start()
  assert folder / "b.png" in next(found)
  thread.join()
  assert len(warnings) == 1 and "Trying again" in warnings[0]
