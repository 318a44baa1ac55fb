"""Parts of the page: charts, the training log, and bounded pictures."""

import base64
import io
import json

import numpy as np
import pytest
from PIL import Image

from inp_former_jax.evaluation.curves import Curve
from inp_former_jax.evaluation.html_report import charts, pictures
from inp_former_jax.evaluation.html_report.training_log import training_charts


def positions(line: charts.Line) -> np.ndarray:
  return np.array([pair.split(",") for pair in line.points.split()], float)


def test_rates_are_drawn_from_corner_to_corner():
  curve = Curve(np.array([0, 0, 1.0]), np.array([0, 1.0, 1]))
  chart = charts.rate_chart("ROC", "x", "y", [("images", "a", curve)])
  low, high = charts.HEIGHT - charts.BOTTOM, charts.TOP
  left, right = charts.LEFT, charts.WIDTH - charts.RIGHT
  expected = [(left, low), (left, high), (right, high)]
  np.testing.assert_allclose(positions(chart.lines[0]), expected)
  assert [text for _, text in chart.x_ticks] == "0 0.2 0.4 0.6 0.8 1".split()


def test_a_curve_is_cut_where_the_axis_ends():
  curve = Curve(np.array([0, 1.0]), np.array([0, 1.0]))
  chart = charts.rate_chart("PRO", "x", "y", [("", "a", curve)], x_end=0.5)
  end = positions(chart.lines[0])[-1]
  middle = (charts.TOP + charts.HEIGHT - charts.BOTTOM) / 2
  np.testing.assert_allclose(end, (charts.WIDTH - charts.RIGHT, middle))


def test_densities_peak_at_their_scores_however_close_these_are():
  rng = np.random.default_rng(0)
  normal = rng.normal(0.2, 1e-5, 50)
  defective = rng.normal(0.4, 0.05, 50)
  chart = charts.density_chart("Scores", normal, defective, 0.3)
  for line in chart.lines:
    assert positions(line)[:, 1].min() < charts.TOP + 40
  assert len(chart.rug) == 100
  peaks = [positions(x)[positions(x)[:, 1].argmin(), 0] for x in chart.lines]
  assert peaks[0] < chart.threshold < peaks[1]
  assert chart.threshold_text == "threshold 0.3"


@pytest.mark.parametrize(
  "normal, defective",
  [([0.1], []), ([], [0.2, 0.3]), ([0.5] * 9, [0.5] * 9), ([0.1] * 400, [0.2])],
)
def test_few_or_equal_scores_have_no_density(normal, defective):
  chart = charts.density_chart(
    "Scores", np.array(normal), np.array(defective), None
  )
  assert not any(line.points for line in chart.lines)
  drawn = len(defective) + (len(normal) if len(normal) < 150 else 0)
  assert len(chart.rug) == drawn and chart.threshold is None


@pytest.mark.parametrize(
  "value, text", [(0, "0"), (7.5e-4, "7.5e-4"), (1e-3, "1e-3")]
)
def test_learning_rates_are_short(value, text):
  assert charts._scientific(value) == text


def test_the_log_is_drawn_and_a_cut_line_left_out(tmp_path):
  lines = [
    {"step": step, "loss": 1 / step, "learning_rate": 1e-3}
    for step in range(1, 1001)
  ]
  lines.append({"step": 500, "test/image_auroc": 0.9, "loss": float("nan")})
  text = "\n".join(map(json.dumps, lines)) + '\n{"step": 1001, "lo'
  (tmp_path / "log.jsonl").write_text(text)
  loss, rate, test = training_charts(tmp_path)
  assert [line.name for line in loss.lines] == ["loss"]
  assert len(positions(loss.lines[0])) == 200
  assert rate.title == "Learning rate" and test.lines[0].name == "image AUROC"


def test_without_a_log_there_are_no_charts(tmp_path):
  assert training_charts(tmp_path) == []
  (tmp_path / "log.jsonl").write_text("")
  assert training_charts(tmp_path) == []


@pytest.mark.parametrize("max_bytes", [1_500, 5_000, 40_000])
def test_pictures_keep_to_their_size(max_bytes):
  noise = np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8)
  strip = pictures.strip(
    (noise, noise[..., 0] > 128, None), pictures.side_for(max_bytes, 3)
  )
  address = pictures.data_address(strip, max_bytes)
  content = base64.b64decode(address.removeprefix("data:image/jpeg;base64,"))
  assert len(content) <= max_bytes
  with Image.open(io.BytesIO(content)) as image:
    assert image.format == "JPEG" and image.width > 3 * image.height
