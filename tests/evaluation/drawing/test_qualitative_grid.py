"""The qualitative grid: one scale, sizes, masks, names, atomic files."""

import dataclasses
import subprocess
import sys

import matplotlib
import numpy as np
import pytest
from PIL import Image

from inp_former_jax.evaluation import figures
from inp_former_jax.evaluation.drawing import canvas, qualitative_grid


def sample(anomaly_map=None, mask="empty", title="washer / good", size=64):
  random = np.random.default_rng(0)
  image = random.integers(0, 256, (size, size, 3), np.uint8)
  if anomaly_map is None:
    anomaly_map = random.uniform(0.05, 0.2, (32, 32))
  if isinstance(mask, str):
    mask = np.zeros((size, size), bool)
  return qualitative_grid.QualitativeSample(
    image, mask, anomaly_map, title, 0.123
  )


def pixels(path):
  with Image.open(path) as image:
    assert image.format == "PNG"
    return np.asarray(image.convert("RGB"))


def cell(array, row, column):
  """The middle of a cell of a one-panel grid without a title."""
  top = qualitative_grid.MARGIN / 2 + qualitative_grid.HEADING
  top += (
    row * (qualitative_grid.CAPTION + qualitative_grid.CELL)
    + qualitative_grid.CAPTION
  )
  left = qualitative_grid.MARGIN + column * (
    qualitative_grid.CELL + qualitative_grid.GAP
  )
  inset = qualitative_grid.CELL / 10
  y, x, length = (
    round(v * canvas.DPI)
    for v in (top + inset, left + inset, qualitative_grid.CELL - 2 * inset)
  )
  return array[y : y + length, x : x + length]


@pytest.fixture
def draw(tmp_path):
  def draw(samples, **kwargs):
    path = tmp_path / "figures" / "grid.png"
    arguments = {"vmin": 0.05, "vmax": 0.35} | kwargs
    qualitative_grid.save_qualitative_grid(path, samples, **arguments)
    assert [p.name for p in path.parent.iterdir()] == ["grid.png"]
    return pixels(path)

  return draw


def test_grid_grows_by_rows_and_then_by_panels(draw):
  one = draw([sample()])
  two = draw([sample()] * 2)
  row = (qualitative_grid.CELL + qualitative_grid.CAPTION) * canvas.DPI
  assert two.shape[0] - one.shape[0] == pytest.approx(row, abs=1)
  assert two.shape[1] == one.shape[1] == 624
  ten = draw([sample()] * 10)  # two panels of five
  assert ten.shape[0] - one.shape[0] == pytest.approx(4 * row, abs=1)
  assert ten.shape[1] == 2 * one.shape[1]
  titled = draw([sample()], title="INP-Former")
  assert titled.shape[0] - one.shape[0] == pytest.approx(
    qualitative_grid.TITLE * canvas.DPI, abs=1
  )


def test_rows_have_the_shape_of_the_images(draw):
  square = sample()
  wide = dataclasses.replace(
    square, image=square.image[:16], mask=square.mask[:16]
  )
  high = draw([square] * 2).shape[0] - draw([square]).shape[0]
  low = draw([wide] * 2).shape[0] - draw([wide]).shape[0]
  saved = qualitative_grid.CELL * (1 - 16 / 64) * canvas.DPI
  assert high - low == pytest.approx(saved, abs=2)


def test_nine_rows_of_noise_stay_below_two_megabytes(tmp_path):
  path = tmp_path / "grid.png"
  samples = [sample(size=392)] * 9
  qualitative_grid.save_qualitative_grid(path, samples, vmin=0.0, vmax=0.2)
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

  def difference(part):  # of means: cells fall on other fractions of a pixel
    means = [array[part].mean((0, 1)) for array in (below, above)]
    return np.abs(means[0] - means[1]).max()

  assert difference(right) < 1
  assert difference(left) > 30


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

  monkeypatch.setattr(canvas.FigureCanvasAgg, "print_png", fail)
  with pytest.raises(OSError, match="disk full"):
    qualitative_grid.save_qualitative_grid(path, [sample()], vmin=0, vmax=1)
  assert path.read_bytes() == b"old"
  assert list(tmp_path.iterdir()) == [path]


def test_global_state_is_left_alone(tmp_path):
  before = dict(matplotlib.rcParams)
  qualitative_grid.save_qualitative_grid(
    tmp_path / "grid.png", [sample()], vmin=0, vmax=1
  )
  assert dict(matplotlib.rcParams) == before
  code = (
    "import sys, inp_former_jax.evaluation.drawing.grid;"
    "sys.exit('matplotlib.pyplot' in sys.modules)"
  )
  assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_colour_bar_has_the_colours_of_maps_over_mid_grey(draw):
  array = draw([sample()], vmin=0.0, vmax=1.0).astype(int)
  bottom = qualitative_grid.COLOUR_BAR - 0.14 + 0.05
  row = array[array.shape[0] - round(bottom * canvas.DPI)]
  grey = np.full((1, 1, 3), 128, np.uint8)
  middle = array.shape[1] / 2
  length = 3 * qualitative_grid.CELL * canvas.DPI / 1.06  # less its two tips
  for score in (0.02, 0.25, 0.5, 0.75, 0.98):
    offset = (score - 0.5) * length
    expected = figures.overlay(grey, np.full((1, 1), score), 0.0, 1.0)[0, 0]
    found = row[round(middle + offset)]
    np.testing.assert_allclose(found, expected, rtol=0, atol=8)
