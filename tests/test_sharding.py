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


_SIXTY_FOUR = """
import jax, numpy as np
from inp_former_jax import sharding

devices = jax.devices()
assert len(devices) == 64
rng = np.random.default_rng(0)
arrays = {d: rng.integers(-2**56, 2**56, (3, 100_000)) for d in devices}
total = sharding.sum_over_devices(arrays, devices)
np.testing.assert_array_equal(total, sum(arrays.values()))
mesh = jax.sharding.Mesh(np.array(devices), ("part",))
rows = jax.ShapeDtypeStruct(
  (64, 4, sharding.SUM_ELEMENTS),
  np.uint32,
  sharding=jax.NamedSharding(mesh, jax.P("part")),
)
program = sharding._adding(mesh).lower(rows).compile()
text = program.as_text()
assert "all-reduce" in text and "all-gather" not in text
used = program.memory_analysis()
peak = (
  used.argument_size_in_bytes
  + used.output_size_in_bytes
  + used.temp_size_in_bytes
)
assert peak <= 13 * 2**20, peak  # on each device, whatever their number
print("agreed", peak)
"""


def test_64_parts_are_summed_in_a_bounded_buffer():
  run = subprocess.run(
    [sys.executable, "-c", _SIXTY_FOUR],
    cwd=ROOT,
    env=os.environ | {"JAX_NUM_CPU_DEVICES": "64", "JAX_PLATFORMS": "cpu"},
    capture_output=True,
    text=True,
    timeout=120,
  )
  assert run.returncode == 0, run.stderr
  assert run.stdout.startswith("agreed")


def test_sums_of_other_numbers_are_refused():
  with pytest.raises(TypeError, match="not of int32"):
    sharding.sum_over_processes(np.zeros(3, np.int32))


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
maps = np.zeros((2, 600, 500), np.float32)
maps[rank] = 0.1
total = sharding.sum_over_processes(maps)
assert total.shape == maps.shape and (total == np.float32(0.1)).all()
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
