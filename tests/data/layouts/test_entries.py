"""Checks of data sets that come with a list of their files."""

import os
import pathlib

import pytest

from inp_former_jax.data.errors import DataError
from inp_former_jax.data.layouts import entries
from inp_former_jax.data.layouts.entries import (
  require_files,
  require_once,
  resolve_within,
)

ROOT = pathlib.Path("/data/parts")


@pytest.mark.parametrize(
  "name", ["a.png", "nut/a b.png", "nut/..a/b..png", "./a.png", "ä/..."]
)
def test_names_inside_the_root(name):
  assert resolve_within(ROOT, name, "here") == ROOT / name


@pytest.mark.parametrize(
  ("name", "fault"),
  [
    ("", "is empty"),
    (" ", "is empty"),
    ("/etc/passwd", "is absolute"),
    ("C:/a.png", "is absolute"),
    ("../a.png", "leads upwards"),
    ("nut/../../a.png", "leads upwards"),
    ("nut/..", "leads upwards"),
    ("nut\\..\\a.png", "backslash"),
    ("a\0.png", "NUL"),
  ],
)
def test_names_that_may_leave_the_root(name, fault):
  with pytest.raises(DataError) as caught:
    resolve_within(ROOT, name, "split.csv, line 3")
  for part in ("split.csv, line 3", repr(name), fault, str(ROOT)):
    assert part in str(caught.value)


def test_an_image_listed_twice():
  seen = {}
  require_once(ROOT / "a.png", "line 2", seen)
  require_once(ROOT / "b.png", "line 3", seen)
  with pytest.raises(DataError) as caught:
    require_once(resolve_within(ROOT, "./a.png", ""), "line 4", seen)
  for part in (str(ROOT / "a.png"), "line 2", "line 4"):
    assert part in str(caught.value)


def make_files(folder: pathlib.Path, count: int) -> list[pathlib.Path]:
  """Files 0.png, 1.png, ... of a folder, five to a folder within."""
  files = [folder / str(i // 5) / f"{i}.png" for i in range(count)]
  for file in files:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch()
  return files


def test_files_that_are_there(tmp_path):
  require_files(make_files(tmp_path, 500), "split.csv")
  require_files([], "split.csv")


def test_linked_files_are_there(tmp_path):
  files = make_files(tmp_path / "elsewhere", 5)
  (tmp_path / "parts").mkdir()
  (tmp_path / "parts" / "file.png").symlink_to(files[0])
  (tmp_path / "parts" / "folder").symlink_to(files[0].parent)
  require_files(
    [tmp_path / "parts/file.png", tmp_path / "parts/folder/1.png"], "split.csv"
  )


def test_missing_files_are_counted_and_the_first_named(tmp_path):
  files = make_files(tmp_path, 500)
  for number in (177, 33, 34, 400):
    files[number].unlink()
  files += [tmp_path / "none" / "0.png", files[0] / "1.png", tmp_path / "0"]
  (tmp_path / "link.png").symlink_to(tmp_path / "nothing")
  files.append(tmp_path / "link.png")
  with pytest.raises(DataError) as caught:
    require_files(files, "split.csv")
  expected = f"split.csv lists {files[33]}, which does not exist; 8 of its 504"
  assert expected in str(caught.value)


def test_every_folder_is_listed_once_and_no_file_asked_for(
  tmp_path, monkeypatch
):
  files = make_files(tmp_path, 500)
  listed = []

  def scandir(folder):
    listed.append(folder)
    return os_scandir(folder)

  def stat(*_, **__):
    raise AssertionError("asks for a single file")

  os_scandir = os.scandir
  monkeypatch.setattr(entries.os, "scandir", scandir)
  monkeypatch.setattr(entries.os, "stat", stat)
  require_files(files, "split.csv")
  assert sorted(listed) == sorted({str(file.parent) for file in files})
