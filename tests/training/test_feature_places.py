"""Features are the same wherever they are kept."""

import jax
import ml_dtypes
import numpy as np
import pytest

from inp_former_jax import sharding
from inp_former_jax.data import loader
from inp_former_jax.data.row_file import CacheError, RowFile
from inp_former_jax.training import feature_places as places

COUNT, SHAPE = 7, (2, 25, 8)


@pytest.fixture(params=[np.float32, ml_dtypes.bfloat16])
def file(request, tmp_path):
  rows = RowFile(
    tmp_path / "a.rows", {}, count=COUNT, shape=SHAPE, dtype=request.param
  )
  for index in range(COUNT):
    rows.write(index, values(index).astype(request.param))
  return rows


def values(index):
  return np.random.default_rng(index).normal(size=SHAPE)


@pytest.mark.parametrize("where", [places.DEVICE, places.HOST, places.DISK])
def test_batches_hold_the_groups_of_their_images(file, where):
  mesh = sharding.single_device_mesh()
  features = places.place(file, file, mesh, where)
  options = {"batch_size": 3, "seed": 1}
  numbers = loader.shuffled_batches(range(COUNT), lambda i: {"i": i}, **options)
  batches = loader.shuffled_batches(range(COUNT), features.example, **options)
  for _ in range(4):
    batch = {
      name: sharding.to_global(rows, sharding.batch_sharding(mesh))
      for name, rows in next(batches).items()
    }
    groups = features.groups(batch)
    assert groups.dtype == file.dtype
    expected = [values(i).astype(file.dtype) for i in next(numbers)["i"]]
    np.testing.assert_array_equal(jax.device_get(groups), expected)
  numbers.close()
  batches.close()


def test_damage_during_the_run_names_row_and_remedy(file):
  features = places.place(
    file, file, sharding.single_device_mesh(), places.DISK
  )
  with open(file.path, "r+b") as damaged:
    damaged.seek(2 * file.row_bytes + 100)
    damaged.write(b"damage")
  with pytest.raises(CacheError, match=r"Row 2 of .*a.rows.*Start it again"):
    features.example(2)
