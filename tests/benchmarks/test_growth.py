"""Straight lines are recognised, and nothing is said of two points."""

import pytest

from inp_former_jax.benchmarks import growth
from inp_former_jax.benchmarks.floor import Rates
from inp_former_jax.benchmarks.speed import Point, Speed, Speeds


def speed(batch_size: int, crop: int, seconds: float, flops: int) -> Speed:
  return Speed(
    encoder="vit",
    work="predict",
    batch_size=batch_size,
    crop=(crop, crop),
    seconds=(seconds, 100 * seconds, seconds),
    fractions=(0.5, 0.5, 0.5),
    compile_seconds=1.0,
    flops=flops,
    floor_bytes=10,
    compiler_flops=None,
    compiler_bytes=None,
    temporary_bytes=None,
    argument_bytes=None,
    output_bytes=None,
    host_bytes=2_000_000,
    device_bytes=None,
  )


def speeds(*found: Speed) -> Speeds:
  return Speeds(found, (Rates(1.0, 1.0),), {}, ())


def test_a_straight_line_is_found_with_its_start_and_slope():
  line = growth.fit("work over images", "image", [1, 2, 8], [3.0, 5.0, 17.0])
  assert line and line.is_straight
  assert (line.start, line.slope) == pytest.approx((1.0, 2.0))
  assert line.describe().endswith("largest deviation 0%: a straight line")


def test_a_bend_is_told():
  line = growth.fit("work", "image", [1, 2, 4, 8], [1.0, 4.0, 16.0, 64.0])
  assert line and not line.is_straight and line.deviation > 0.1
  assert line.describe().endswith("NOT a straight line")


@pytest.mark.parametrize("x", [[1, 2], [1, 2, 2]])
def test_two_points_say_nothing(x):
  assert growth.fit("work", "image", x, [1.0] * len(x)) is None


def test_batches_are_measured_at_one_crop_and_crops_at_one_batch():
  found = growth.points([1, 4], [28, 56], 4, (56, 56))
  expected = [Point(1, (56, 56)), Point(4, (56, 56)), Point(4, (28, 28))]
  assert found == expected
  assert growth.points([], [], 4, (56, 56)) == []


def test_lines_follow_the_batch_and_the_operations():
  by_batch = [speed(b, 56, 0.1 + b, 10**9) for b in (1, 2, 4)]
  by_crop = [speed(4, 28, 2.1, 5 * 10**8), speed(4, 112, 16.1, 4 * 10**9)]
  found = speeds(*by_batch, *by_crop)
  over_images, over_work = growth.lines(found, 4, (56, 56))
  assert over_images.slope == pytest.approx(1.0)
  assert over_images.deviation == pytest.approx(0.0, abs=1e-9)
  assert over_work.slope == pytest.approx(1.0)
  assert over_work.unit == "GFLOP"
  table = growth.format_table(found, [over_images, over_work])
  assert table.count("a straight line") == 2
  row = table.splitlines()[3].split()
  assert row == ["vit", "predict", "1", "56x56", "1100.0", "1.00", "-"] + [
    *("2", "0.500")
  ]


def test_without_enough_sizes_the_table_gives_no_verdict():
  found = speeds(speed(1, 56, 1.0, 10), speed(2, 56, 2.0, 10))
  assert growth.lines(found, 2, (56, 56)) == []
  table = growth.format_table(found, [])
  assert "straight" not in table and "fewer than 3" in table
