"""Batches: their order, their resumption, their split over processes."""

import dataclasses
import itertools
import json

import jax
import numpy as np
import pytest
from PIL import Image

from inp_former_jax.data import loader
from inp_former_jax.data.errors import DataError
from inp_former_jax.data.records import Record
from inp_former_jax.data.transforms import Preprocessing

PREPROCESSING = Preprocessing((14, 28), (14, 28))
NUM_RECORDS = 23


@pytest.fixture
def records(tmp_path):
  """Images whose only grey value is their position."""
  records = []
  for i in range(NUM_RECORDS):
    Image.new("L", (16, 16), i).save(tmp_path / f"{i:02}.png")
    records.append(Record(tmp_path / f"{i:02}.png", "nut", 0, "good"))
  return tuple(records)


@pytest.fixture
def mixed_records(records, tmp_path):
  """The third image has a mask, the fifth is defective without a mask."""
  mask = np.zeros((16, 16), np.uint8)
  mask[:8] = 255
  Image.fromarray(mask).save(tmp_path / "mask.png")
  changes = {
    2: {"label": 1, "defect": "bent", "masks": (tmp_path / "mask.png",)},
    4: {"label": 1, "defect": "bent"},
  }
  return tuple(
    dataclasses.replace(record, **changes.get(i, {}))
    for i, record in enumerate(records)
  )


def training(records, **options):
  options = {"batch_size": 4, "seed": 1, "num_threads": 2} | options
  return loader.training_batches(records, PREPROCESSING, **options)


def evaluation(records, **options):
  options = {"batch_size": 4, "evaluation_size": 8, "num_threads": 2} | options
  return loader.evaluation_batches(records, PREPROCESSING, **options)


def order(batches, count):
  """The positions of the images of the next batches."""
  images = [b["image"] for b in itertools.islice(batches, count)]
  return [image[:, 0, 0, 0].tolist() for image in images]


def truncate(path):
  path.write_bytes(path.read_bytes()[:-30])


def test_steps_per_epoch_drops_the_rest():
  assert loader.steps_per_epoch(23, 4) == 5
  assert loader.steps_per_epoch(3, 4) == 0


def test_batches_are_uint8_of_the_crops_size(records):
  batch = next(training(records))
  assert set(batch) == {"image"}
  assert batch["image"].dtype == np.uint8
  assert batch["image"].shape == (4, 14, 28, 3)


def test_every_epoch_has_each_record_at_most_once_in_a_new_order(records):
  batches = training(records)
  epochs = [sum(order(batches, 5), []) for _ in range(20)]
  assert all(len(set(epoch)) == 20 for epoch in epochs)
  assert len({tuple(epoch) for epoch in epochs}) == 20
  # What an epoch drops is drawn anew, too: none is left out for good.
  assert set(sum(epochs, [])) == set(range(NUM_RECORDS))


def test_order_depends_on_the_seed_alone(records):
  expected = order(training(records), 12)
  for num_threads in (0, 1, 5):
    assert order(training(records, num_threads=num_threads), 12) == expected
  assert order(training(records, seed=2), 12) != expected


@pytest.mark.parametrize("num_workers", [1, 2])
def test_order_does_not_depend_on_the_number_of_workers(records, num_workers):
  expected = order(training(records), 12)
  batches = training(records, num_workers=num_workers)
  assert order(batches, 12) == expected
  batches.close()


@pytest.mark.parametrize("process_count", [2, 4])
def test_global_batches_do_not_depend_on_the_processes(records, process_count):
  expected = order(training(records), 12)
  parts = [
    order(training(records, process_index=i, process_count=process_count), 12)
    for i in range(process_count)
  ]
  for step, batch in enumerate(expected):
    shares = [part[step] for part in parts]
    assert {len(share) for share in shares} == {4 // process_count}
    assert sorted(sum(shares, [])) == sorted(batch)


@pytest.mark.parametrize("make", ["training", "evaluation"])
def test_every_process_reads_its_part_only(records, monkeypatch, make):
  read = []
  monkeypatch.setattr(
    loader,
    "load_image",
    lambda file, preprocessing: (
      read.append(file) or np.zeros((14, 28, 3), np.uint8)
    ),
  )
  parts = []
  for index in range(4):
    options = {"process_index": index, "process_count": 4, "num_threads": 0}
    batches = globals()[make](records, **options)
    list(itertools.islice(batches, 5))  # an epoch, without what it drops
    parts.append(set(read))
    assert len(read) == 5
    read.clear()
  assert len(set().union(*parts)) == 20


@pytest.mark.parametrize("taken", [0, 3, 5, 7])
def test_resumes_with_the_very_next_batch(records, taken):
  batches = training(records)
  order(batches, taken)
  state = json.loads(json.dumps(batches.get_state()))
  expected = order(batches, 7)
  resumed = training(records, num_threads=0)
  resumed.set_state(state)
  assert resumed.get_state() == state
  assert order(resumed, 7) == expected
  batches.set_state(state)  # one that runs already goes back
  assert order(batches, 7) == expected


def test_resumes_with_other_workers_and_processes(records):
  batches = training(records)
  order(batches, 7)
  state = batches.get_state()
  expected = order(batches, 3)
  resumed = training(records, num_workers=2, process_index=1, process_count=2)
  resumed.set_state(state)
  assert order(resumed, 3) == [batch[1::2] for batch in expected]
  resumed.close()


def test_a_single_record_can_be_trained_on(records):
  assert order(training(records[:1], batch_size=1), 3) == [[0]] * 3


def test_images_of_workers_outlive_the_batch_on_devices(records):
  batches = training(records, num_workers=1)
  images = [jax.device_put(next(batches)["image"]) for _ in range(6)]
  batches.close()
  found = [np.asarray(image)[:, 0, 0, 0].tolist() for image in images]
  assert found == order(training(records), 6)


def test_batch_larger_than_the_data_set(records):
  with pytest.raises(
    DataError,
    match="24 images, but there are only 23 .*`batch_size` to at most 23",
  ):
    training(records, batch_size=24)


@pytest.mark.parametrize("make", [training, evaluation])
@pytest.mark.parametrize("batch_size, processes", [(4, 3), (0, 1)])
def test_batch_size_and_processes(records, make, batch_size, processes):
  with pytest.raises(ValueError, match=f"{batch_size}.*multiple.*{processes}"):
    make(records, batch_size=batch_size, process_count=processes)


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("make", [training, evaluation])
def test_a_corrupt_image_is_named(records, make, num_workers):
  truncate(records[7].image)
  batches = make(records, num_workers=num_workers)
  with pytest.raises(DataError, match="07.png.*truncated"):
    order(batches, 6)
  batches.close()


def test_a_corrupt_image_is_not_skipped_by_asking_again(records):
  truncate(records[7].image)
  batches = training(records)
  for _ in range(2):
    with pytest.raises(DataError, match="07.png"):
      order(batches, 6)


def test_a_closed_iterator_says_so(records):
  batches = training(records)
  batches.close()
  with pytest.raises(ValueError, match="closed"):
    next(batches)


@pytest.mark.parametrize("num_workers", [0, 3])
def test_evaluation_is_in_order_and_padded(mixed_records, num_workers):
  batches = list(evaluation(mixed_records, num_workers=num_workers))
  shapes = {
    "image": ((4, 14, 28, 3), np.uint8),
    "mask": ((4, 8, 8), np.bool_),
    "has_mask": ((4,), np.bool_),
    "index": ((4,), np.int32),
    "valid": ((4,), np.bool_),
  }
  assert len(batches) == 6
  for batch in batches:
    found = {name: (x.shape, x.dtype.type) for name, x in batch.items()}
    assert found == shapes
  joined = {
    name: np.concatenate([batch[name] for batch in batches]) for name in shapes
  }
  assert joined["index"].tolist() == [*range(NUM_RECORDS), -1]
  assert joined["valid"].tolist() == [True] * NUM_RECORDS + [False]
  assert joined["image"][:, 0, 0, 0].tolist() == [*range(NUM_RECORDS), 0]
  assert not joined["image"][-1].any()
  without_mask = np.flatnonzero(~joined["has_mask"]).tolist()
  assert without_mask == [4, NUM_RECORDS]
  assert np.flatnonzero(joined["mask"].any((1, 2))).tolist() == [2]
  assert joined["mask"][2, :4].all() and not joined["mask"][2, 4:].any()


@pytest.mark.parametrize("process_count", [2, 4])
def test_evaluation_is_split_over_processes(mixed_records, process_count):
  parts = [
    list(
      evaluation(mixed_records, process_index=i, process_count=process_count)
    )
    for i in range(process_count)
  ]
  assert {len(part) for part in parts} == {6}
  indices = np.concatenate([b["index"] for part in parts for b in part])
  assert sorted(indices) == [-1, *range(NUM_RECORDS)]


@pytest.mark.parametrize("num_workers", [0, -1])
def test_processes_without_an_image_evaluate_filling(
  mixed_records, num_workers
):
  options = {"process_count": 4, "num_workers": num_workers}
  found = [
    [
      batch["index"].tolist()
      for batch in evaluation(mixed_records[:2], process_index=i, **options)
    ]
    for i in range(4)
  ]
  assert found == [[[0]], [[1]], [[-1]], [[-1]]]


def test_more_workers_than_batches(mixed_records):
  batches = list(evaluation(mixed_records[:3], num_workers=4))
  assert [batch["index"].tolist() for batch in batches] == [[0, 1, 2, -1]]


def test_mask_of_another_size_is_named(mixed_records, tmp_path):
  Image.new("L", (16, 15), 255).save(tmp_path / "mask.png")
  with pytest.raises(DataError, match="mask.png is 16x15.*02.png is 16x16"):
    list(evaluation(mixed_records))


def test_nothing_to_evaluate():
  with pytest.raises(DataError, match="no test images.*test/good"):
    evaluation(())
