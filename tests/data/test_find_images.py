"""Which files of a folder are taken for images."""

import os
import pathlib

import pytest

from inp_former_jax.data import image_files, transforms
from inp_former_jax.data.errors import DataError

SIZES = transforms.Preprocessing((28, 28), (28, 28))


def tree(root: pathlib.Path, *names: str) -> None:
  for name in names:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).touch()


def found(root: pathlib.Path) -> list[str]:
  return [p.relative_to(root).as_posix() for p in image_files.find_images(root)]


def test_images_are_found_in_order_at_any_depth(tmp_path):
  tree(tmp_path, "b.PNG", "a/z.jpg", "a/b/c/y.tiff", "a.bmp", "notes.txt")
  tree(tmp_path, ".hidden.png", ".cache/a.png", "a/.thumbs/b.png", "png", "x.")
  assert found(tmp_path) == ["a/b/c/y.tiff", "a/z.jpg", "a.bmp", "b.PNG"]
  assert image_files.find_images(str(tmp_path)) == sorted(
    image_files.find_images(tmp_path)
  )


def test_links_in_a_circle_are_followed_once(tmp_path):
  tree(tmp_path, "a/1.png", "b/2.png")
  (tmp_path / "a" / "up").symlink_to(tmp_path)
  (tmp_path / "b" / "other").symlink_to(tmp_path / "a")
  (tmp_path / "a" / "self").symlink_to("self")
  # What leads nowhere may have been a folder of images: reading it says so.
  assert found(tmp_path) == ["a/1.png", "a/self", "b/2.png"]


def test_a_linked_folder_is_searched(tmp_path):
  tree(tmp_path, "real/1.png", "set/2.png")
  (tmp_path / "set" / "link").symlink_to(tmp_path / "real")
  assert found(tmp_path / "set") == ["2.png", "link/1.png"]


def test_what_only_has_the_name_of_an_image_is_found_to_be_reported(tmp_path):
  tree(tmp_path, "folder.png/inner.png")
  os.mkfifo(tmp_path / "pipe.png")
  (tmp_path / "link.png").symlink_to(tmp_path / "gone.png")
  assert found(tmp_path) == ["folder.png", "link.png", "pipe.png"]
  for path in image_files.find_images(tmp_path):
    with pytest.raises(DataError, match=str(path)):
      transforms.load_image(path, SIZES)


def test_a_folder_that_cannot_be_searched_is_named(tmp_path):
  for name in ("nowhere", "file"):
    tree(tmp_path, "file")
    with pytest.raises(DataError, match=f"{name} cannot be searched"):
      image_files.find_images(tmp_path / name)
