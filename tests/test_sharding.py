"""Meshes, shardings and what processes exchange."""

import os
import socket
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import multihost_utils
from jax.sharding import AbstractMesh
from jax.sharding import PartitionSpec as P

from inp_former_jax import sharding
from tests.conftest import ROOT


def mesh_of(data: int, fsdp: int) -> AbstractMesh:
  """A mesh of devices that this machine need not have."""
  return AbstractMesh((data, fsdp), sharding.AXES)


@pytest.fixture
def eight_devices(monkeypatch):
  monkeypatch.setattr(jax, "device_count", lambda: 8)
  made = []
  monkeypatch.setattr(jax, "make_mesh", lambda *args, **_: made.append(args))
  return made


def test_one_device_is_the_smallest_mesh():
  mesh = sharding.make_mesh()
  assert mesh.axis_names == ("data", "fsdp")
  assert mesh.size == jax.device_count()


@pytest.mark.parametrize(
  "data, fsdp, shape",
  [(-1, 1, (8, 1)), (-1, 4, (2, 4)), (2, 4, (2, 4)), (1, 8, (1, 8))],
)
def test_mesh_takes_all_devices(eight_devices, data, fsdp, shape):
  sharding.make_mesh(data, fsdp)
  assert eight_devices == [(shape, ("data", "fsdp"))]


@pytest.mark.parametrize(
  "data, fsdp",
  [(3, 1), (8, 2), (4, 1), (-1, 3), (-1, 16), (0, 8), (-2, -4), (-1, 0)],
)
def test_meshes_that_do_not_fit_are_refused(eight_devices, data, fsdp):
  with pytest.raises(ValueError, match="there are 8") as error:
    sharding.make_mesh(data, fsdp)
  message = str(error.value)
  assert "`data` x `fsdp`" in message and "`data`=-1" in message
  assert f"{data} x {fsdp} devices" in message
  assert not eight_devices


def test_batches_are_split_over_all_devices():
  split = sharding.batch_sharding(mesh_of(2, 4))
  assert split.spec == P(("data", "fsdp"))
  assert split.shard_shape((16, 3, 5)) == (2, 3, 5)
  whole = sharding.replicated(mesh_of(2, 4))
  assert whole.shard_shape((16, 3, 5)) == (16, 3, 5)


@pytest.mark.parametrize(
  "shape, spec",
  [
    ((16, 32), P(None, "fsdp")),
    ((32, 16), P("fsdp", None)),
    ((16, 16), P("fsdp", None)),  # the first of equals
    ((16, 33), P("fsdp", None)),  # the largest does not divide
    ((1, 16, 48), P(None, None, "fsdp")),
    ((1, 6, 48), P()),  # prototypes
    ((48,), P()),  # a bias
    ((3,), P()),  # head scales
    ((33, 17), P()),
    ((), P()),  # the step counter
  ],
)
def test_parameters_split_along_the_largest_axis_that_divides(shape, spec):
  leaf = jax.ShapeDtypeStruct(shape, jnp.float32)
  shardings = sharding.parameter_shardings(mesh_of(2, 4), {"x": leaf})
  assert shardings["x"].spec == spec


def test_parameters_are_whole_without_fsdp():
  tree = {"a": np.zeros((8, 32)), "b": [np.zeros(48)]}
  shardings = sharding.parameter_shardings(mesh_of(8, 1), tree)
  assert jax.tree.structure(shardings) == jax.tree.structure(tree)
  assert all(s.spec == P() for s in jax.tree.leaves(shardings))


def test_batch_that_devices_divide_is_accepted():
  sharding.check_batch_size(mesh_of(2, 4), 16)


@pytest.mark.parametrize("size, nearest", [(17, 16), (23, 24), (3, 8), (1, 8)])
def test_batches_that_devices_do_not_divide_name_the_nearest(size, nearest):
  with pytest.raises(ValueError) as error:
    sharding.check_batch_size(mesh_of(2, 4), size)
  assert f"`batch_size` is {size}" in str(error.value)
  assert "8 devices" in str(error.value)
  assert str(error.value).endswith(f"is {nearest}.")


@pytest.mark.parametrize("size", [0, -8])
def test_empty_batches_are_refused(size):
  with pytest.raises(ValueError, match=f"`batch_size` is {size}; expected 1"):
    sharding.check_batch_size(mesh_of(2, 4), size)


def test_batch_goes_to_the_devices_and_back():
  mesh = sharding.make_mesh()
  batch = np.random.default_rng(0).integers(0, 256, (8, 3, 2), np.uint8)
  placed = sharding.to_global(batch, sharding.batch_sharding(mesh))
  assert isinstance(placed, jax.Array) and placed.dtype == np.uint8
  assert placed.shape == batch.shape
  back = sharding.to_local(placed)
  assert isinstance(back, np.ndarray)
  np.testing.assert_array_equal(back, batch)


LARGE = np.array([[2**62 + 1, -1], [2**40 + 3, 0]], np.int64)


def test_one_process_gathers_itself():
  gathered = sharding.gather_processes(LARGE)
  assert gathered.dtype == np.int64 and gathered.shape == (1, 2, 2)
  np.testing.assert_array_equal(gathered[0], LARGE)
  np.testing.assert_array_equal(sharding.sum_over_processes(LARGE), LARGE)


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
    multihost_utils,
    "process_allgather",
    lambda x: jnp.stack([jnp.asarray(x)] * 2),
  )
  gathered = sharding.gather_processes(array)
  assert gathered.dtype == array.dtype
  np.testing.assert_array_equal(gathered, np.stack([array, array]))


def test_sums_are_refused_where_they_would_not_be_exact():
  with pytest.raises(TypeError, match="`array` is float64; expected int64"):
    sharding.sum_over_processes(np.zeros(3))


def test_one_process_gets_a_copy():
  array = np.zeros(3, np.float32)
  sharding.sum_over_processes(array)[0] = 1
  assert not array.any()


@pytest.mark.parametrize("size", [0, 1, 6, 7, 8, 31])
@pytest.mark.parametrize("divisor", [1, 3, 8])
def test_sums_come_in_pieces_of_one_size(monkeypatch, size, divisor):
  monkeypatch.setattr(sharding, "SUM_PIECE", 7)
  array = np.random.default_rng(0).integers(-(2**60), 2**60, size)
  sizes = []

  def exchange(words):
    sizes.append(words.shape[1])
    return words.astype(np.uint32) * 3

  total = sharding._sum_in_pieces(array, exchange, divisor)
  np.testing.assert_array_equal(total, array * 3)
  assert len(set(sizes)) <= 1
  assert all(n % divisor == 0 and n < 7 + divisor for n in sizes)


_SIMULATED = """
import jax, numpy as np
from jax.sharding import NamedSharding
from inp_former_jax import sharding
from inp_former_jax.evaluation.metrics import REGION_UNIT, PixelHistograms

PROCESSES, BINS, MIB = 64, 2**18, 2**20
mesh = jax.sharding.Mesh(
  np.array(jax.devices()).reshape(8, 1), ("processes", "devices")
)
rows = NamedSharding(mesh, sharding._ROWS)
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
pieces = iter(range(0, 3 * BINS, sharding.SUM_PIECE))
total = sharding._row_sum(mesh)
seen = []

def exchange(words):
  start = next(pieces)
  own = shares.reshape(PROCESSES, -1)[:, start : start + sharding.SUM_PIECE]
  sent = np.stack([sharding._to_words(np.ascontiguousarray(x)) for x in own])
  np.testing.assert_array_equal(sent[0], words)
  placed = jax.device_put(sent, rows)
  seen.append(placed.nbytes // PROCESSES)
  return np.asarray(total(placed))

found = sharding._sum_in_pieces(shares[0], exchange, 1)
assert found.dtype == np.int64
np.testing.assert_array_equal(found, expected)
assert seen == [2 * MIB] * 3
merged = PixelHistograms.from_array(found)
assert merged.regions.sum() / REGION_UNIT > 1
# Of a device that holds 8 of the 64 rows: them, the sum of them, and no other
# row of any process.
shape = (PROCESSES, 4, sharding.SUM_PIECE)
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
  run = subprocess.run(
    [sys.executable, "-c", _SIMULATED],
    cwd=ROOT,
    env=os.environ | {"JAX_NUM_CPU_DEVICES": "8", "JAX_PLATFORMS": "cpu"},
    capture_output=True,
    text=True,
    timeout=120,
  )
  assert run.returncode == 0, run.stderr
  assert run.stdout == "agreed\n"


_PROCESS = """
import sys
import jax, numpy as np
from inp_former_jax import sharding

address, rank = sys.argv[1], int(sys.argv[2])
jax.distributed.initialize(address, 2, rank)
mesh = sharding.make_mesh(fsdp=2)
assert mesh.size == 4
rows = np.arange(4) + 4 * rank
batch = sharding.to_global(rows, sharding.batch_sharding(mesh))
assert batch.shape == (8,)
assert int(jax.jit(lambda x: x.sum())(batch)) == 28
np.testing.assert_array_equal(sharding.to_local(batch), rows)
total = sharding.sum_over_processes(np.array([2**61 + rank, rank]))
assert total.tolist() == [2**62 + 1, 1], total
sharding.SUM_PIECE = 5  # not a multiple of the two devices
for dtype in (np.int64, np.float32):
  own = np.arange(21, dtype=dtype).reshape(3, 7)
  total = sharding.sum_over_processes(own * (rank + 1))
  assert total.dtype == dtype
  np.testing.assert_array_equal(total, own * 3)
np.testing.assert_array_equal(
  sharding.gather_processes(np.array(rank)), [0, 1]
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
