"""What processes exchange comes out whole, exactly, and in bounded memory."""

import os
import socket
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from inp_former_jax.processes import exchange
from tests.conftest import ROOT, assert_agrees_on_eight_devices

LARGE = np.array([[2**62 + 1, -1], [2**40 + 3, 0]], np.int64)


def test_one_process_gathers_itself():
  gathered = exchange.gather_processes(LARGE)
  assert gathered.dtype == np.int64 and gathered.shape == (1, 2, 2)
  np.testing.assert_array_equal(gathered[0], LARGE)
  np.testing.assert_array_equal(exchange.sum_over_processes(LARGE), LARGE)


@pytest.mark.parametrize(
  "array",
  [
    LARGE,
    LARGE.T,  # not contiguous
    np.array([1 / 3, 1e300, np.nan]),
    np.array(2**40),
    np.zeros((0, 3)),
  ],
)
def test_64_bits_survive_the_way_between_processes(monkeypatch, array):
  monkeypatch.setattr(jax, "process_count", lambda: 2)
  # What jax does to arrays on the way: 64 bits are cut to 32.
  monkeypatch.setattr(
    exchange.multihost_utils,
    "process_allgather",
    lambda x: jnp.stack([jnp.asarray(x)] * 2),
  )
  gathered = exchange.gather_processes(array)
  assert gathered.dtype == array.dtype
  np.testing.assert_array_equal(gathered, np.stack([array, array]))


def test_sums_are_refused_where_they_would_not_be_exact():
  with pytest.raises(TypeError, match="`array` is float64; expected int64"):
    exchange.sum_over_processes(np.zeros(3))


def test_one_process_gets_a_copy():
  array = np.zeros(3, np.float32)
  exchange.sum_over_processes(array)[0] = 1
  assert not array.any()


@pytest.mark.parametrize("size", [0, 1, 6, 7, 8, 31])
@pytest.mark.parametrize("divisor", [1, 3, 8])
def test_sums_come_in_pieces_of_one_size(monkeypatch, size, divisor):
  monkeypatch.setattr(exchange, "SUM_PIECE", 7)
  array = np.random.default_rng(0).integers(-(2**60), 2**60, size)
  sizes = []

  def send(words):
    sizes.append(words.shape[1])
    return words.astype(np.uint32) * 3

  total = exchange._sum_in_pieces(array, send, divisor)
  np.testing.assert_array_equal(total, array * 3)
  assert len(set(sizes)) <= 1
  assert all(n % divisor == 0 and n < 7 + divisor for n in sizes)


_SIMULATED = """
import jax, numpy as np
from jax.sharding import NamedSharding
from inp_former_jax.evaluation.metrics import REGION_UNIT, PixelHistograms
from inp_former_jax.processes import exchange

PROCESSES, BINS, MIB = 64, 2**18, 2**20
mesh = jax.sharding.Mesh(
  np.array(jax.devices()).reshape(8, 1), ("processes", "devices")
)
rows = NamedSharding(mesh, exchange._ROWS)
random = np.random.default_rng(0)
# Counts of a bin above 2**32 in total, and fractions of regions in units of
# 2**-40, as the histograms hold them.
shares = random.integers(0, 2**28, (PROCESSES, 3, BINS))
areas = random.integers(1, 2000, (PROCESSES, BINS))
shares[:, 2] = np.rint(REGION_UNIT / areas)
shares[:, 0, 5] = 2**27 + 1
shares[7, 1, 6], shares[9, 1, 6] = -(2**62), 2**62 + 1  # carries and signs
expected = shares.sum(axis=0)
assert expected[0, 5] > 2**32 and expected[0, 5] != np.float32(expected[0, 5])
# All processes send their piece at the same time: that of the first one stands
# for the others, which are looked up by the number of the piece.
pieces = iter(range(0, 3 * BINS, exchange.SUM_PIECE))
total = exchange._row_sum(mesh)
seen = []

def send(words):
  start = next(pieces)
  own = shares.reshape(PROCESSES, -1)[:, start : start + exchange.SUM_PIECE]
  sent = np.stack([exchange._to_words(np.ascontiguousarray(x)) for x in own])
  np.testing.assert_array_equal(sent[0], words)
  placed = jax.device_put(sent, rows)
  seen.append(placed.nbytes // PROCESSES)
  return np.asarray(total(placed))

found = exchange._sum_in_pieces(shares[0], send, 1)
assert found.dtype == np.int64
np.testing.assert_array_equal(found, expected)
assert seen == [2 * MIB] * 3
merged = PixelHistograms.from_array(found)
assert merged.regions.sum() / REGION_UNIT > 1
# Of a device that holds 8 of the 64 rows: them, the sum of them, and no other
# row of any process.
shape = (PROCESSES, 4, exchange.SUM_PIECE)
piece = jax.ShapeDtypeStruct(shape, np.uint16, sharding=rows)
compiled = total.lower(piece).compile()
memory = compiled.memory_analysis()
assert memory.argument_size_in_bytes == 8 * 2 * MIB
assert memory.output_size_in_bytes == 4 * MIB
assert memory.temp_size_in_bytes <= 4 * MIB, memory
text = compiled.as_text()
assert "all-reduce" in text and "all-gather" not in text
print("agreed")
"""


def test_64_processes_sum_their_histograms_in_a_bounded_buffer():
  assert_agrees_on_eight_devices(_SIMULATED)


_PROCESS = """
import sys
import jax, numpy as np
from inp_former_jax import sharding
from inp_former_jax.processes import exchange

address, rank = sys.argv[1], int(sys.argv[2])
jax.distributed.initialize(address, 2, rank)
mesh = sharding.make_mesh(fsdp=2)
assert mesh.size == 4
rows = np.arange(4) + 4 * rank
batch = sharding.to_global(rows, sharding.batch_sharding(mesh))
assert batch.shape == (8,)
assert int(jax.jit(lambda x: x.sum())(batch)) == 28
np.testing.assert_array_equal(sharding.to_local(batch), rows)
total = exchange.sum_over_processes(np.array([2**61 + rank, rank]))
assert total.tolist() == [2**62 + 1, 1], total
exchange.SUM_PIECE = 5  # not a multiple of the two devices
for dtype in (np.int64, np.float32):
  own = np.arange(21, dtype=dtype).reshape(3, 7)
  total = exchange.sum_over_processes(own * (rank + 1))
  assert total.dtype == dtype
  np.testing.assert_array_equal(total, own * 3)
np.testing.assert_array_equal(
  exchange.gather_processes(np.array(rank)), [0, 1]
)
print("agreed")
"""


def test_two_processes_share_batches_and_sums():
  with socket.socket() as free:
    free.bind(("localhost", 0))
    address = f"localhost:{free.getsockname()[1]}"
  processes = [
    subprocess.Popen(
      [sys.executable, "-c", _PROCESS, address, str(rank)],
      cwd=ROOT,
      env=os.environ | {"JAX_NUM_CPU_DEVICES": "2", "JAX_PLATFORMS": "cpu"},
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    )
    for rank in range(2)
  ]
  try:
    outputs = [process.communicate(timeout=120) for process in processes]
  finally:
    for process in processes:
      process.kill()
  for process, (out, err) in zip(processes, outputs, strict=True):
    assert process.returncode == 0, err
    assert "agreed\n" in out  # Gloo prints as well
