"""TFDS data sets that somebody made to do harm: refused, or without effect."""

import json
import os
import pathlib
import sys

import pytest
from PIL import Image

from inp_former_jax.data.errors import DataError
from inp_former_jax.data.records import Dataset, Record
from inp_former_jax.data.tfds.builder import build_tfds
from inp_former_jax.data.tfds.source import INDEX, read_tfds

pytest.importorskip("tensorflow_datasets")
pytest.importorskip("array_record")


@pytest.fixture
def folder(tmp_path) -> pathlib.Path:
  """The folder of a sound data set of one image, `parts` in `tmp_path`."""
  image, mask = tmp_path / "files" / "0.png", tmp_path / "files" / "m.png"
  image.parent.mkdir()
  Image.effect_noise((40, 40), 90).save(image)
  Image.new("L", (40, 40), 255).save(mask)
  record = Record(image, "nut", 1, "bent", (mask,))
  good = Record(image, "nut", 0, "good")
  dataset = Dataset("parts", (good,), (record,))
  return build_tfds(dataset, image.parent, tmp_path, "parts").folder


def change(folder: pathlib.Path, line: int, **values) -> None:
  lines = (folder / INDEX).read_text().splitlines()
  lines[line] = json.dumps(json.loads(lines[line]) | values)
  (folder / INDEX).write_text("\n".join(lines) + "\n")


def error_of(folder: pathlib.Path) -> str:
  with pytest.raises(DataError) as caught:
    read_tfds("parts", folder.parent.parent)
  message = str(caught.value)
  assert message.isprintable()
  return message


@pytest.mark.parametrize(
  "values",
  [
    {"category": "../../../x"},
    {"category": "/tmp/x"},
    {"category": "..", "source": ".."},
    {"category": "a/../b", "source": "a"},
    {"defect": "../../x"},
    {"defect": "\x1b]0;title\x07"},
    {"sample": "../../x"},
    {"view": "a/b"},
    {"image": "files/.."},
    {"image": "files/a\nb.png"},
    {"image": "files/\udcff.png"},
  ],
)
def test_names_that_lead_elsewhere(folder, values):
  change(folder, 1, **values)
  assert "expected a name that a folder may have" in error_of(folder)


@pytest.mark.parametrize(
  "values",
  [
    {"category": None},
    {"category": ["nut"]},
    {"label": 2},
    {"label": True},
    {"label": "0"},
    {"mask_values": "all"},
    {"masks": "m.png"},
    {"masks": [0]},
    {"image": 1},
    {"split": ["train"]},
  ],
)
def test_values_of_another_type(folder, values):
  change(folder, 1, **values)
  assert "damaged, or a newer" in error_of(folder)


@pytest.mark.parametrize("name", ["../../../etc/passwd", "/etc/passwd", ".."])
def test_sizes_of_foreign_files_are_not_looked_up(folder, name):
  change(folder, 0, files={name: 1})
  assert "the name of a file is" in error_of(folder)


def test_an_index_that_is_a_named_pipe_or_too_deep(folder):
  (folder / INDEX).write_text("[" * 200_000)
  assert "damaged, or a newer" in error_of(folder)
  (folder / INDEX).unlink()
  os.mkfifo(folder / INDEX)
  assert "is a named pipe" in error_of(folder)


def test_more_masks_or_records_than_are_stored(folder):
  change(folder, 2, masks=["m.png", "more.png"])
  lines = (folder / INDEX).read_text().splitlines()
  (folder / INDEX).write_text("\n".join([*lines, lines[1]]) + "\n")
  dataset = read_tfds("parts", folder.parent.parent)
  for file in (dataset.test[0].masks[1], dataset.train[1].image):
    with pytest.raises(DataError, match="cannot be read"):
      file.open()


def test_classes_that_a_file_names_are_not_imported(folder, monkeypatch):
  module = folder / "evil.py"
  module.write_text("import os\nos.environ['ATTACKED'] = 'yes'\n")
  monkeypatch.syspath_prepend(str(folder))
  monkeypatch.delenv("ATTACKED", raising=False)
  for name in ("features.json", "dataset_info.json"):
    path = folder / name
    text = path.read_text()
    changed = text.replace("tensorflow_datasets.", "evil.")
    path.write_text(changed.replace("inp_former_jax.data", "evil"))
  lines = (folder / INDEX).read_text().splitlines()
  files = json.loads(lines[0])["files"]
  assert "features.json" in files
  assert "evil." in (folder / "features.json").read_text()
  change(folder, 0, files={n: (folder / n).stat().st_size for n in files})
  dataset = read_tfds("parts", folder.parent.parent)
  for record in (*dataset.train, *dataset.test):
    assert record.image.open().read()
  assert dataset.test[0].masks[0].open().read()
  assert "ATTACKED" not in os.environ and "evil" not in sys.modules
