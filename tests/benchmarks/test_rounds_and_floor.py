"""Rounds take everything in turn; the floor follows from the measured rates."""

import jax
import jax.numpy as jnp
import pytest

from inp_former_jax.benchmarks import floor, rounds
from inp_former_jax.benchmarks.floor import COPY, MATMUL, Rates


def test_every_round_takes_all_calls_in_turn():
  order = []
  calls = {"a": lambda: order.append("a"), "b": lambda: order.append("b")}
  found = rounds.interleave(calls, rounds=2, seconds=0.0)
  assert order == ["a", "b", "a", "b"]
  assert {name: len(values) for name, values in found.items()} == {
    "a": 2,
    "b": 2,
  }


def test_seconds_of_a_call_are_a_mean(monkeypatch):
  clock = iter([0.0, 0.0, 0.4, 0.8, 1.2])
  monkeypatch.setattr(rounds.time, "perf_counter", lambda: next(clock))
  calls = []
  seconds = rounds.seconds_of_call(lambda: calls.append(0), seconds=1.0)
  assert len(calls) == 3
  assert seconds == pytest.approx(1.2 / 3)


def test_spread_is_median_and_range():
  spread = rounds.Spread.of([1.0, 4.0, 2.0])
  assert (spread.median, spread.low, spread.high) == (2.0, 1.0, 4.0)


def test_floor_is_the_longer_of_arithmetic_and_traffic():
  rates = Rates(flops=100.0, bytes=10.0)
  assert rates.floor(flops=200.0, num_bytes=5.0) == 2.0
  assert rates.floor(flops=200.0, num_bytes=50.0) == 5.0


def test_rates_count_the_operations_and_both_ways_of_a_copy():
  meter = floor.Meter(jax.devices()[0], jnp.float32, side=64)
  (rate,) = meter.rates({MATMUL: (2.0,), COPY: (4.0,)})
  assert rate.flops == 2 * 64**3 / 2.0
  assert rate.bytes == 2 * 4 * 64**2 / 4.0


def test_a_matrix_product_is_timed_in_the_compute_dtype():
  meter = floor.Meter(jax.devices()[0], jnp.bfloat16, side=64)
  assert meter.calls[MATMUL]().dtype == jnp.bfloat16
  seconds = rounds.interleave(meter.calls, rounds=2, seconds=0.0)
  for rate in meter.rates(seconds):
    assert rate.flops > 0 and rate.bytes > 0


def test_bytes_are_those_that_one_device_holds():
  tree = {"a": jnp.zeros((3, 4), jnp.bfloat16), "b": (jnp.zeros(5), None)}
  assert floor.bytes_on_device(tree) == 3 * 4 * 2 + 5 * 4
