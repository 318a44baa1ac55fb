"""Features are the same wherever they are kept."""

import os

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


def free_bytes(monkeypatch, *, device=1 << 40, host=1 << 40, disk=1 << 40):
  for name, free in (
    ("free_device_memory", device),
    ("free_host_memory", host),
    ("free_disk", disk),
  ):
    monkeypatch.setattr(places, name, lambda *unused, free=free: free)


@pytest.mark.parametrize("disk, copies", [(1 << 40, 1), (0, 2)])
@pytest.mark.parametrize("on_cpu", [False, True])
def test_features_for_devices_need_room_on_their_way(
  file, monkeypatch, disk, copies, on_cpu
):
  os.truncate(file.path, 0)  # no row has been computed
  monkeypatch.setattr(places, "_limit", lambda _: None if on_cpu else 1)
  needed = (copies + on_cpu) * COUNT * file.data_bytes
  mesh = sharding.single_device_mesh()
  free_bytes(monkeypatch, host=2 * needed, disk=disk)
  assert places.choose(file, mesh) == (places.DEVICE, disk > 0)
  free_bytes(monkeypatch, host=2 * needed - 2, disk=disk)
  assert places.choose(file, mesh)[0] != places.DEVICE


def test_a_file_s_rows_count_where_the_rest_is_not_kept(
  file, monkeypatch, capsys
):
  with open(file.path, "r+b") as lost:
    lost.seek(2 * file.row_bytes)
    lost.write(bytes(8))
  free_bytes(monkeypatch, device=0, disk=0)
  mesh = sharding.single_device_mesh()
  assert places.choose(file, mesh) == (places.HOST, False)
  printed = capsys.readouterr().out
  assert "6 computed before" in printed and "1 of them not kept" in printed
  rows = places.rows_in_memory(file, range(1, COUNT))
  assert rows.read(0) is None and rows.read(2) is None  # not asked for; lost
  for index in (1, *range(3, COUNT)):
    np.testing.assert_array_equal(rows.read(index), file.read(index))
