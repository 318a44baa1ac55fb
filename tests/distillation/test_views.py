"""Views: determined by their index, and held-out ones truly apart."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from inp_former_jax.data.errors import DataError
from inp_former_jax.distillation.textures import make_texture
from inp_former_jax.distillation.views import (
  HELD_OUT,
  SOURCES,
  TRAIN,
  Views,
  ViewSettings,
  find_images,
)


@pytest.fixture
def folder(tmp_path):
  """Twenty images, each of one grey value of its own, and a mask."""
  for i in range(20):
    path = tmp_path / "images" / f"batch{i % 2}" / f"{i:02d}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (40, 30), (10 * i,) * 3).save(path)
  mask = tmp_path / "images" / "ground_truth" / "00.png"
  mask.parent.mkdir()
  Image.new("L", (40, 30)).save(mask)
  return str(tmp_path / "images")


def settings(folder=None, **changes):
  folders = (folder,) if folder else ()
  base = ViewSettings(folders, (0.5, 0.25, 0.25), 56, 0.3, 7)
  return dataclasses.replace(base, **changes)


def test_a_view_depends_on_seed_split_and_index_only(folder):
  views = Views(settings(folder), TRAIN, 12)
  again = Views(settings(folder), TRAIN, 30)
  for index in (11, 0, 5):
    assert views[index].shape == (56, 56, 3)
    assert views[index].dtype == np.uint8
    np.testing.assert_array_equal(views[index], again[index])
  other_seed = Views(settings(folder, seed=8), TRAIN, 12)
  other_split = Views(settings(folder), HELD_OUT, 12)
  for other in (other_seed, other_split):
    assert any((views[i] != other[i]).any() for i in range(12))
  assert len(views) == 12
  with pytest.raises(IndexError):
    views[12]


def test_sources_come_as_often_as_their_shares(folder):
  views = Views(settings(folder, shares=(2, 1, 1)), TRAIN, 2000)
  counts = [
    sum(views.source(i) == s for i in range(len(views))) for s in SOURCES
  ]
  np.testing.assert_allclose(
    np.array(counts) / 2000, [0.5, 0.25, 0.25], atol=0.04
  )
  assert {Views(settings(), TRAIN, 50).source(i) for i in range(50)} == set(
    SOURCES[1:]
  )


def test_held_out_views_show_other_images(folder):
  def greys(split):
    only_images = settings(folder, shares=(1, 0, 0))
    views = Views(only_images, split, 60)
    return {p for part in views._folders for p in part}

  assert greys(TRAIN) and greys(HELD_OUT)
  assert not greys(TRAIN) & greys(HELD_OUT)
  assert greys(TRAIN) | greys(HELD_OUT) == set(find_images(folder))


def test_masks_and_unreadable_files_are_left_out(folder, tmp_path):
  (tmp_path / "images" / "broken.png").write_bytes(b"no image")
  paths = find_images(folder)
  assert len(paths) == 20
  assert all("ground_truth" not in path.parts for path in paths)


@pytest.mark.parametrize(
  "changes, message",
  [
    (
      {"folders": ("nowhere",)},
      "`folders` names nowhere, .* not a folder",
    ),
    ({"shares": (1, -1, 0)}, "`shares` is .* three numbers"),
    ({"shares": (1, 2)}, "`shares` is .* three numbers"),
    ({"shares": (1, 0, 0)}, "nothing to take views of: set `folders`"),
  ],
)
def test_bad_settings(changes, message):
  with pytest.raises(DataError, match=message):
    Views(settings(**changes), TRAIN, 1)


def test_one_image_cannot_be_split(tmp_path):
  Image.new("RGB", (20, 20)).save(tmp_path / "a.png")
  with pytest.raises(DataError, match="holds 1 images"):
    Views(settings(str(tmp_path)), TRAIN, 1)


def test_textures_are_reproducible_and_varied():
  rngs = [np.random.default_rng([3, i]) for i in range(12)]
  textures = [make_texture(rng, 64) for rng in rngs]
  again = make_texture(np.random.default_rng([3, 0]), 64)
  np.testing.assert_array_equal(textures[0], again)
  assert all(t.shape == (64, 64, 3) and t.dtype == np.uint8 for t in textures)
  assert all(t.std() > 2 for t in textures)  # no flat picture
  means = {tuple(t.mean(axis=(0, 1)).round(3)) for t in textures}
  assert len(means) == len(textures)
