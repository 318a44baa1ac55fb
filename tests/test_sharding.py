"""Meshes, and the shardings of batches and parameters."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractMesh
from jax.sharding import PartitionSpec as P

from inp_former_jax import sharding


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
