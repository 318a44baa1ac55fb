"""The benchmark of reading images, on a few small ones."""

import json

import pytest

from inp_former_jax.benchmarks import data
from tests.conftest import tiny_config


@pytest.fixture
def small(dataset_root, monkeypatch):
  config = tiny_config(dataset_root)
  monkeypatch.setattr(data, "SIDE", 96)
  config.data.num_workers = 0
  return config


def test_every_work_is_measured_with_every_source(small):
  found = data.measure(small, rounds=2, seconds=0.01, images=3)
  assert json.loads(json.dumps(found)) == found
  rows = {(row["source"], row["work"]) for row in found["rows"]}
  works = (data.DECODE, data.LOAD, data.LOADER, data.CACHE)
  own = found["rows"][-1]["source"]
  assert rows == {
    (source, work)
    for source in ("PNG 96x96", "JPEG 96x96", own)
    for work in works
  }
  for row in found["rows"]:
    assert len(row["images_per_second"]) == 2
    assert min(row["images_per_second"] + row["images_per_cpu_second"]) > 0
    assert 0 < row["megabytes"] < 1
  table = data.format_table(found).splitlines()
  assert len(table) == 2 + len(found["rows"])
  assert all(len(line) <= 80 for line in table[1:])
  assert "image cache" in table[-1] and own[:17] in table[-1]


def test_without_a_data_set_there_are_the_images_made_on_the_spot(small):
  small.data.root = ""
  found = data.measure(small, rounds=1, seconds=0.0, images=1)
  assert {row["source"] for row in found["rows"]} == {"PNG 96x96", "JPEG 96x96"}


@pytest.mark.parametrize("name", ["rounds", "images"])
def test_a_number_out_of_range_is_named(small, name):
  numbers = {"rounds": 1, "images": 1} | {name: 0}
  with pytest.raises(ValueError, match=f"`{name}` is 0; expected 1"):
    data.measure(small, seconds=0.0, **numbers)
