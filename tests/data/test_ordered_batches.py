"""What is computed once of every image sees each of them in its order."""

import functools

import numpy as np
import pytest

from inp_former_jax.data.layouts.registry import read_layout
from inp_former_jax.data.ordered_batches import ordered_batches
from inp_former_jax.data.training_examples import epoch
from inp_former_jax.data.transforms import Preprocessing, load_image

PREPROCESSING = Preprocessing((32, 32), (28, 28))
LOAD = functools.partial(load_image, preprocessing=PREPROCESSING)


@pytest.fixture(scope="module")
def records(dataset_root):
  return read_layout("mvtec", dataset_root, ()).train


def test_images_and_augmentations_have_their_numbers(records):
  items, _ = epoch(records, True, "uniform")
  numbers = [5, 30, 7, 300, 21, 22]
  batches = list(ordered_batches(items, numbers, LOAD, batch_size=2))
  found = {k: np.concatenate([b[k] for b in batches]) for k in batches[0]}
  assert found["index"].tolist() == numbers
  for i, number in enumerate(numbers):
    record, augmentation = items[number]
    assert found["augmentation"][i] == augmentation
    np.testing.assert_array_equal(found["image"][i], LOAD(record.image))


def test_processes_share_the_batches(records):
  def take(**process):
    batches = ordered_batches(records, range(12), LOAD, batch_size=4, **process)
    return [batch["index"].tolist() for batch in batches]

  first = take(process_index=0, process_count=2)
  second = take(process_index=1, process_count=2)
  assert take() == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
  assert [sorted(a + b) for a, b in zip(first, second, strict=True)] == take()
