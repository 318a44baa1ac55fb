"""Links that lead nowhere: never left out without a word, in any layout."""

import pathlib

import pytest

from inp_former_jax.data.__main__ import main
from inp_former_jax.data.errors import DataError
from inp_former_jax.data.image_files import find_images
from inp_former_jax.data.layouts import registry
from inp_former_jax.data.layouts.listing import images_of, subfolders
from tests.data.layouts import layout_trees


def unfetch(path: pathlib.Path) -> None:
  """Makes of a file or folder what git-annex has before it is fetched."""
  away = path.with_name(f".{path.name}.away")
  path.rename(away)
  path.symlink_to(path.with_name("gone"))


def test_links_to_nothing_are_counted_and_named(tmp_path):
  for number in range(6):
    (tmp_path / f"{number}.png").touch()
  for number in range(1, 6):
    unfetch(tmp_path / f"{number}.png")
  for listed in (images_of, subfolders):
    with pytest.raises(DataError) as caught:
      listed(tmp_path)
    assert str(caught.value).startswith(
      f"{tmp_path}: 5 of its 6 entries are links to files or folders that are "
      "not there: 1.png, 2.png, 3.png and 2 more. Fetch them"
    )


def test_links_that_lead_somewhere_are_followed(tmp_path):
  real = tmp_path / "real"
  real.mkdir()
  (real / "a.png").touch()
  (tmp_path / "set").mkdir()
  (tmp_path / "set" / "folder").symlink_to(real)
  (tmp_path / "set" / "b.png").symlink_to(real / "a.png")
  (tmp_path / "set" / ".#lock").symlink_to("user@host")  # hidden
  assert subfolders(tmp_path / "set") == [tmp_path / "set" / "folder"]
  assert images_of(tmp_path / "set") == [tmp_path / "set" / "b.png"]


def test_a_link_to_itself_is_named(tmp_path):
  (tmp_path / "a").symlink_to("a")
  with pytest.raises(DataError, match="1 of its 1 entries are links"):
    subfolders(tmp_path)


@pytest.mark.parametrize(
  "lost",
  [
    "nut",
    "nut/train",
    "nut/train/good",
    "nut/train/good/002.png",
    "nut/test",
    "nut/test/dent",
    "nut/test/dent/001.png",
    "nut/ground_truth",
    "nut/ground_truth/dent",
    "nut/ground_truth/dent/001_mask.png",
  ],
)
def test_nothing_of_a_tree_is_lost(tmp_path, lost, capsys):
  root = layout_trees.mvtec(tmp_path / "parts")
  unfetch(root / lost)
  for layout in ("mvtec", "mpdd", "visa"):
    with pytest.raises(DataError, match="not there|which does not exist"):
      registry.read_layout(layout, root)
  assert main(["--layout=mvtec", f"--root={root}"]) == 2
  message = capsys.readouterr().err
  assert "1 of its" in message and pathlib.Path(lost).name in message


TREES = {
  "btad": (layout_trees.btad, ["01", "01/train/ok", "01/train/ok/0001.bmp"]),
  "mvtec_loco": (
    layout_trees.mvtec_loco,
    ["box", "box/train/good/001.png", "box/validation"],
  ),
}


@pytest.mark.parametrize(
  "layout, lost", [(k, lost) for k, (_, all_) in TREES.items() for lost in all_]
)
def test_nothing_of_other_layouts_is_lost(tmp_path, layout, lost):
  root = TREES[layout][0](tmp_path / "parts")
  registry.read_layout(layout, root)
  unfetch(root / lost)
  with pytest.raises(DataError, match="1 of its"):
    registry.read_layout(layout, root)


def test_nothing_of_your_own_folder_is_lost(tmp_path):
  for name in (
    "normal/a.png",
    "normal/b.png",
    "defect/cut/c.png",
    "mask/c.png",
  ):
    layout_trees.draw(tmp_path / name, 1)
  registry.read_layout("folder", tmp_path)
  for lost in ("normal/b.png", "defect/cut", "defect", "mask", "mask/c.png"):
    unfetch(tmp_path / lost)
    with pytest.raises(DataError, match="1 of its"):
      registry.read_layout("folder", tmp_path)
    (tmp_path / lost).unlink()
    (tmp_path / lost).with_name(f".{pathlib.Path(lost).name}.away").rename(
      tmp_path / lost
    )


def test_predictions_find_what_is_lost(tmp_path):
  (tmp_path / "a.png").touch()
  (tmp_path / "folder").symlink_to(tmp_path / "gone")
  (tmp_path / "b.png").symlink_to(tmp_path / "gone")
  names = [path.name for path in find_images(tmp_path)]
  assert names == ["a.png", "b.png", "folder"]
