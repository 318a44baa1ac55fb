"""Regions that never count."""

import json

import numpy as np
import pytest
from PIL import Image

from inp_former_jax.data.errors import DataError
from inp_former_jax.inference.framing.regions import load_regions


def test_a_mask_file_and_its_array_are_the_same_regions(tmp_path):
  mask = np.zeros((30, 40), bool)
  mask[:10, 5:] = True
  path = tmp_path / "ignore.png"
  Image.fromarray(mask.astype(np.uint8) * 255).save(path)
  loaded, given = load_regions(path), load_regions(mask)
  np.testing.assert_array_equal(loaded.of_size((30, 40)), mask)
  assert loaded.sha256 == given.sha256


def test_polygons_are_filled(tmp_path):
  corners = [[0, 0], [19, 0], [19, 9], [0, 9]]
  plain, labelme = tmp_path / "a.json", tmp_path / "b.json"
  plain.write_text(json.dumps([corners]))
  labelme.write_text(json.dumps({"shapes": [{"points": corners}]}))
  expected = np.zeros((30, 40), bool)
  expected[:10, :20] = True
  for path in (plain, labelme):
    regions = load_regions(path)
    np.testing.assert_array_equal(regions.of_size((30, 40)), expected)
  assert load_regions(plain).sha256 == load_regions(labelme).sha256


def test_other_regions_have_another_checksum():
  one, other = np.zeros((2, 4, 4), bool)
  one[0], other[:, 0] = True, True
  assert load_regions(one).sha256 != load_regions(other).sha256


@pytest.mark.parametrize(
  "content, message",
  [
    ("no json", "cannot be read as polygons"),
    ("[[[0, 0], [1, 1]]]", "a polygon has 2 corners"),
    ("[[1, 2, 3]]", "cannot be read as polygons"),
    ('{"polygons": []}', "cannot be read as polygons.*shapes"),
    ("[]", "holds no polygon"),
  ],
)
def test_bad_polygons_are_refused(tmp_path, content, message):
  path = tmp_path / "ignore.json"
  path.write_text(content)
  with pytest.raises(DataError, match=message) as caught:
    load_regions(path)
  assert str(path) in str(caught.value)


def test_what_is_missing_or_empty_is_refused(tmp_path):
  with pytest.raises(DataError, match="cannot be read as polygons"):
    load_regions(tmp_path / "none.json")
  with pytest.raises(DataError, match="none.png"):
    load_regions(tmp_path / "none.png")
  with pytest.raises(DataError, match="ignores nothing"):
    load_regions(np.zeros((3, 3), bool))
  with pytest.raises(DataError, match="array .* of uint8; expected a mask"):
    load_regions(np.zeros((3, 3), np.uint8))


def test_another_size_or_nothing_left_is_refused():
  regions = load_regions(np.eye(8, dtype=bool))
  with pytest.raises(DataError, match="8x8 pixels .*an image has 9x8"):
    regions.of_size((8, 9))
  with pytest.raises(DataError, match="cover the whole image"):
    load_regions(np.ones((8, 8), bool)).of_size((8, 8))
