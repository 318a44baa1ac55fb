"""Figures: one colour scale, sizes, masks, atomic files, no global state."""

import dataclasses
import subprocess
import sys

import matplotlib
import numpy as np
import pytest
from PIL import Image

from inp_former_jax.evaluation import figures
from inp_former_jax.inference.colours import colour_scale


def sample(anomaly_map=None, mask="empty", title="washer / good", size=64):
  random = np.random.default_rng(0)
  image = random.integers(0, 256, (size, size, 3), np.uint8)
  if anomaly_map is None:
    anomaly_map = random.uniform(0.05, 0.2, (32, 32))
  if isinstance(mask, str):
    mask = np.zeros((size, size), bool)
  return figures.QualitativeSample(image, mask, anomaly_map, title, 0.123)


def pixels(path):
  with Image.open(path) as image:
    assert image.format == "PNG"
    return np.asarray(image.convert("RGB"))


def cell(array, row, column):
  """The middle of a cell of a one-panel grid without a title."""
  top = figures.MARGIN / 2 + figures.HEADING
  top += row * (figures.CAPTION + figures.CELL) + figures.CAPTION
  left = figures.MARGIN + column * (figures.CELL + figures.GAP)
  inset = figures.CELL / 10
  y, x, length = (
    round(v * figures.DPI)
    for v in (top + inset, left + inset, figures.CELL - 2 * inset)
  )
  return array[y : y + length, x : x + length]


@pytest.fixture
def draw(tmp_path):
  def draw(samples, **kwargs):
    path = tmp_path / "figures" / "grid.png"
    arguments = {"vmin": 0.05, "vmax": 0.35} | kwargs
    figures.save_qualitative_grid(path, samples, **arguments)
    assert [p.name for p in path.parent.iterdir()] == ["grid.png"]
    return pixels(path)

  return draw


def test_grid_grows_by_rows_and_then_by_panels(draw):
  one = draw([sample()])
  two = draw([sample()] * 2)
  row = (figures.CELL + figures.CAPTION) * figures.DPI
  assert two.shape[0] - one.shape[0] == pytest.approx(row, abs=1)
  assert two.shape[1] == one.shape[1] == 624
  ten = draw([sample()] * 10)  # two panels of five
  assert ten.shape[0] - one.shape[0] == pytest.approx(4 * row, abs=1)
  assert ten.shape[1] == 2 * one.shape[1]
  titled = draw([sample()], title="INP-Former")
  assert titled.shape[0] - one.shape[0] == pytest.approx(
    figures.TITLE * figures.DPI, abs=1
  )


def test_rows_have_the_shape_of_the_images(draw):
  square = sample()
  wide = dataclasses.replace(
    square, image=square.image[:16], mask=square.mask[:16]
  )
  high = draw([square] * 2).shape[0] - draw([square]).shape[0]
  low = draw([wide] * 2).shape[0] - draw([wide]).shape[0]
  saved = figures.CELL * (1 - 16 / 64) * figures.DPI
  assert high - low == pytest.approx(saved, abs=2)


def test_nine_rows_of_noise_stay_below_two_megabytes(tmp_path):
  path = tmp_path / "grid.png"
  samples = [sample(size=392)] * 9
  figures.save_qualitative_grid(path, samples, vmin=0.0, vmax=0.2)
  assert path.stat().st_size < 2e6


def test_same_score_has_same_colour_in_every_sample(draw):
  """A map's own range changes nothing: 0.1 looks alike beside 0.1 or 0.3."""
  low = np.full((32, 32), 0.1)
  high = low.copy()
  high[:, :16] = 0.3
  array = draw([sample(low), sample(high)])
  below, above = (cell(array, row, 2).astype(int) for row in (0, 1))
  half = below.shape[1] // 2
  right, left = np.s_[:, half + 12 :], np.s_[:, : half - 12]
  # The cells fall on other fractions of a pixel, which the noise shows.
  assert np.abs(below[right] - above[right]).mean() < 3
  assert np.abs(below[left] - above[left]).mean() > 30


def test_masks_are_white_on_black_and_their_absence_is_said(draw):
  mask = np.zeros((64, 64), bool)
  mask[24:40, 24:40] = True
  array = draw([sample(mask=mask), sample(), sample(mask=None)])
  defective, good, unknown = (cell(array, row, 1) for row in range(3))
  assert set(np.unique(defective)) >= {0, 255}
  assert defective[defective.shape[0] // 2, defective.shape[1] // 2].min() > 250
  assert good.max() == 0
  assert np.median(unknown) == 240  # light grey, with words in it
  assert unknown.min() < 160


def test_long_titles_are_cut(draw):
  draw([sample(title="capsule / " + "x" * 200)])


@pytest.mark.parametrize("samples, vmax", [([], 1.0), ([sample()], 0.05)])
def test_grid_refuses_nothing_to_draw(draw, tmp_path, samples, vmax):
  with pytest.raises(ValueError, match=r"No samples|scale .* empty"):
    draw(samples, vmax=vmax)
  assert not list(tmp_path.rglob("*"))


def test_failed_writing_leaves_the_old_figure(tmp_path, monkeypatch):
  path = tmp_path / "grid.png"
  path.write_bytes(b"old")

  def fail(self, file):
    file.write_bytes(b"half")
    raise OSError("disk full")

  monkeypatch.setattr(figures.FigureCanvasAgg, "print_png", fail)
  with pytest.raises(OSError, match="disk full"):
    figures.save_qualitative_grid(path, [sample()], vmin=0, vmax=1)
  assert path.read_bytes() == b"old"
  assert list(tmp_path.iterdir()) == [path]


def test_global_state_is_left_alone(tmp_path):
  before = dict(matplotlib.rcParams)
  figures.save_qualitative_grid(
    tmp_path / "grid.png", [sample()], vmin=0, vmax=1
  )
  assert dict(matplotlib.rcParams) == before
  code = (
    "import sys, inp_former_jax.evaluation.figures;"
    "sys.exit('matplotlib.pyplot' in sys.modules)"
  )
  assert subprocess.run([sys.executable, "-c", code]).returncode == 0


# Overlay.


def test_overlay_has_the_image_size_and_clips_scores():
  image = np.full((40, 60, 3), 128, np.uint8)
  found = figures.overlay(image, np.array([[0.0, 0.0], [1.0, 1.0]]), 0, 1)
  assert found.shape == image.shape and found.dtype == np.uint8
  cold, hot = found[0, 0].astype(int), found[-1, 0].astype(int)
  assert cold[2] > cold[0] and hot[0] > hot[2]  # blue, red
  outside = figures.overlay(image, np.array([[-1.0], [5.0]]), 0, 1)
  np.testing.assert_array_equal(outside[0, 0], cold)
  np.testing.assert_array_equal(outside[-1, 0], hot)


@pytest.mark.parametrize("score, opacity", [(0, 0.45), (0.5, 0.6), (1, 0.75)])
def test_overlay_shows_the_image_in_grey_and_less_of_it_where_hot(
  score, opacity
):
  dark, light = (np.full((8, 8, 3), v, np.uint8) for v in (40, 220))
  scores = np.full((4, 4), score)
  found = [figures.overlay(image, scores, 0, 1) for image in (dark, light)]
  gain = found[1].astype(int) - found[0]
  np.testing.assert_allclose(gain, (1 - opacity) * 180, rtol=0, atol=1)


def test_colour_bar_has_the_colours_of_maps_over_mid_grey(draw):
  array = draw([sample()], vmin=0.0, vmax=1.0).astype(int)
  bottom = figures.COLOUR_BAR - 0.14 + 0.05
  row = array[array.shape[0] - round(bottom * figures.DPI)]
  grey = np.full((1, 1, 3), 128, np.uint8)
  middle = array.shape[1] / 2
  length = 3 * figures.CELL * figures.DPI / 1.06  # less its two tips
  for score in (0.02, 0.25, 0.5, 0.75, 0.98):
    offset = (score - 0.5) * length
    expected = figures.overlay(grey, np.full((1, 1), score), 0.0, 1.0)[0, 0]
    found = row[round(middle + offset)]
    np.testing.assert_allclose(found, expected, rtol=0, atol=8)


# Colour scale.


def maps(peak, count=20, seed=0):
  random = np.random.default_rng(seed)
  result = random.normal(0.05, 0.005, (count, 64, 64)).clip(0.03, 0.07)
  result[:, 20:30, 20:30] = peak
  return list(result)


def test_good_parts_stay_below_three_fifths_of_the_scale():
  normal = maps(0.06)
  for others in ((), maps(0.08), maps(0.3)):
    scale = colour_scale(iter(normal), iter(others))
    limit = scale.vmin + 0.6 * (scale.vmax - scale.vmin)
    assert scale.vmin == pytest.approx(0.05, abs=1e-3)
    assert max(m.max() for m in normal) <= limit + 1e-9


def test_badly_separated_maps_use_the_whole_scale_for_good_parts():
  scale = colour_scale(maps(0.35), maps(0.36))
  share = (0.35 - scale.vmin) / (scale.vmax - scale.vmin)
  assert share == pytest.approx(0.6)


def test_defects_reach_the_hot_end_whatever_a_few_outliers():
  normal, defective = maps(0.06), maps(0.3)
  plain = colour_scale(normal, defective)
  assert plain.vmax == pytest.approx(0.3)
  normal[0][0, 0] = defective[0][0, 0] = 1.9
  assert colour_scale(normal, defective).vmax < 0.35


def test_constant_maps_still_give_a_scale():
  scale = colour_scale([np.zeros((8, 8))])
  assert scale.vmin < scale.vmax


def test_scale_refuses_no_normal_maps_and_nan():
  with pytest.raises(ValueError, match="normal"):
    colour_scale([])
  damaged = np.full((8, 8), np.nan)
  with pytest.raises(ValueError, match="not finite"):
    colour_scale([np.zeros((8, 8))], [damaged])
