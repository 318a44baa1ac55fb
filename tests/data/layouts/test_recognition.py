"""A folder read in a layout that it does not have: the error says its own."""

import pytest

from inp_former_jax import experiment
from inp_former_jax.data.errors import DataError
from inp_former_jax.data.layouts import registry
from inp_former_jax.data.layouts.recognition import describe_other, recognise
from tests.data.layouts.layout_trees import TREES
from tests.data.layouts.test_mvtec import touch

SIGNS = {
  "mvtec": "bolt/train/good",
  "mpdd": "bolt/train/good",
  "btad": "01/train/ok",
  "mvtec_loco": "box/test/logical_anomalies",
  "mvtec_ad2": "can/test_public",
  "visa": "split_csv/1cls.csv",
  "visa_prepared": "1cls",
  "realiad": "realiad_jsons",
  "folder": "normal",
  "folder_split": "split.csv",
}
PUBLIC = [name for name in TREES if not name.startswith("folder")]


@pytest.mark.parametrize("name", TREES)
def test_every_layout_is_recognised(name, tmp_path):
  layout, make = TREES[name]
  found = recognise(make(tmp_path))
  assert found[layout] == SIGNS[name]
  likeliest = next(iter(found))
  assert registry.LAYOUTS[likeliest] == registry.LAYOUTS[layout]
  assert describe_other(tmp_path, layout) == ""


@pytest.mark.parametrize("name", PUBLIC)
def test_public_layouts_are_named_where_own_folders_were_expected(
  name, tmp_path
):
  layout, make = TREES[name]
  layout = "mvtec" if layout == "mpdd" else layout  # they do not differ
  root = make(tmp_path)
  with pytest.raises(DataError) as caught:
    registry.read_layout("folder", root)
  assert str(caught.value) == (
    f"{root} does not have the layout folder; it looks like the layout "
    f"{layout} (it has {SIGNS[name]}): use `layout`={layout}."
  )


@pytest.mark.parametrize(
  ("asked", "name"),
  [
    ("mvtec", "btad"),
    ("mvtec", "visa"),
    ("mvtec", "realiad"),
    ("mvtec", "folder"),
    ("btad", "mvtec"),
    ("visa", "realiad"),
    ("realiad", "mvtec_ad2"),
  ],
)
def test_any_other_layout_is_named(asked, name, tmp_path):
  layout, make = TREES[name]
  with pytest.raises(DataError, match=f"use `layout`={layout}"):
    registry.read_layout(asked, make(tmp_path))


def test_folder_of_a_single_category(tmp_path):
  touch(tmp_path, "train/good/0.png", "ground_truth/bent/0.png")
  with pytest.raises(DataError, match=r"\(it has train/good\).*mvtec"):
    registry.read_layout("folder", tmp_path)


def test_categories_of_own_images_are_recognised(tmp_path):
  touch(tmp_path, "nut/OK/a.png", "notes/readme.txt")
  assert recognise(tmp_path) == {"folder": "nut/OK"}


@pytest.mark.parametrize(
  "files",
  [
    ("a.png",),
    ("first/deep/down/a.png",),
    ("nut/OK/S0001/a.jpg",),  # a folder of images of Real-IAD
    ("train/normal/a.png", "test/normal/a.png"),
    ("normal/readme.txt",),
  ],
)
def test_nothing_is_guessed(tmp_path, files):
  assert recognise(touch(tmp_path, *files)) == {}
  assert recognise(tmp_path / "missing") == {}
  assert recognise(tmp_path / files[0]) == {}


def test_an_error_in_the_right_layout_is_kept(tmp_path):
  """A list of files is own images, wherever the files are."""
  touch(tmp_path, "nut/train/good/0.png")
  (tmp_path / "split.csv").write_text("image,colour\n")
  with pytest.raises(DataError, match="unknown columns 'colour'"):
    registry.read_layout("folder", tmp_path)
  with pytest.raises(DataError, match="no category 'bolt'"):
    registry.read_layout("mvtec", tmp_path, ["bolt"])


def test_unknown_layout_and_no_root():
  with pytest.raises(DataError, match="`layout` is 'mvtek'.*folder and demo"):
    registry.read_layout("mvtek", "x")
  with pytest.raises(DataError, match="`root` is empty: set `root`=FOLDER"):
    registry.read_layout("visa", "")


@pytest.mark.parametrize("root", ["gs://parts/mvtec", "s3:/parts", "abfs://x"])
@pytest.mark.parametrize("layout", registry.LAYOUTS)
def test_a_bucket_is_refused_with_a_remedy(layout, root):
  with pytest.raises(DataError, match=f"`root`={root} is in a bucket.*Mount"):
    registry.read_layout(layout, root)


def test_a_folder_with_a_colon_is_none(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  touch(tmp_path, "lot:/mvtec/bolt/train/good/0.png")
  assert "mvtec" in recognise("lot:/mvtec")


def test_the_demo_is_not_drawn_into_a_folder_named_like_a_bucket(
  config, tmp_path, monkeypatch
):
  monkeypatch.chdir(tmp_path)
  config.data.layout, config.data.root = "demo", "gs://parts/demo"
  with pytest.raises(DataError, match="gs://parts/demo is in a bucket"):
    experiment.read_dataset(config, tmp_path)
  assert not list(tmp_path.iterdir())
