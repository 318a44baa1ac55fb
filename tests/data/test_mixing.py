"""Several data sets as one, and how often which image comes."""

import collections

import numpy as np
import pytest

from inp_former_jax.data import mixing, sampling
from inp_former_jax.data.errors import DataError
from inp_former_jax.data.loader import training_batches
from inp_former_jax.data.transforms import Preprocessing
from tests.data.layouts import layout_trees

PREPROCESSING = Preprocessing((32, 32), (28, 28))


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
  base = tmp_path_factory.mktemp("mixing")
  parts = layout_trees.mvtec(base / "parts", ("bolt", "nut"))
  visa = layout_trees.visa(base / "visa")
  return mixing.read_sources(
    [("mvtec", str(parts), ("nut",)), ("visa", visa.as_posix(), ())]
  )


def test_categories_are_qualified_and_sources_named(mixed):
  assert mixed.categories == ("mvtec/nut", "visa/candle", "visa/pcb1")
  assert {r.source for r in mixed.train} == {"mvtec", "visa"}
  assert mixed.name == "mvtec + visa"
  assert len(mixed.train) == 12


def test_one_layout_twice_takes_the_folders_names(tmp_path):
  roots = [layout_trees.mvtec(tmp_path / n, ("nut",)) for n in ("old", "new")]
  dataset = mixing.read_sources([("mvtec", str(r)) for r in roots])
  assert dataset.categories == ("old/nut", "new/nut")


@pytest.mark.parametrize(
  "sources, message",
  [
    ([("mvtec",)], "expected .layout, root"),
    ([("mvtec", 3)], "expected .layout, root"),
    ([("mvtec", "a/x"), ("mvtec", "b/x")], "called 'x'"),
    ([("mvtek", "x")], "'mvtek'; the layouts are"),
    ([("mvtec", "")], "`root` is empty"),
  ],
)
def test_bad_sources(sources, message):
  with pytest.raises(DataError, match=message):
    mixing.read_sources(sources)


def test_keep_categories(mixed):
  kept = mixing.keep_categories(mixed, ("visa/pcb1",), "x")
  assert kept.categories == ("visa/pcb1",)
  assert mixing.keep_categories(mixed, (), "x") is mixed
  with pytest.raises(DataError, match="Did you mean 'visa/pcb1'"):
    mixing.keep_categories(mixed, ("visa/pcb",), "x")


def drawn(records, count, **options):
  """Mean grey of the images of `count` batches, as their fingerprint."""
  batches = training_batches(
    records, PREPROCESSING, batch_size=4, num_threads=2, **options
  )
  found = [next(batches)["image"] for _ in range(count)]
  batches.close()
  return np.concatenate(found)


def unbalanced(mixed):
  """8 of visa, 2 of mvtec."""
  mvtec = [r for r in mixed.train if r.source == "mvtec"]
  return [r for r in mixed.train if r.source == "visa"] + mvtec[:2]


@pytest.mark.parametrize("kind", ["category", "dataset"])
def test_balanced_sampling_draws_from_all_alike(mixed, kind):
  records = unbalanced(mixed)
  key = {"category": "category", "dataset": "source"}[kind]
  groups = sampling.groups(records, kind)
  order = sampling.balanced_order(records, groups, seed=5)
  first = [order[i] for i in range(24)]
  counts = collections.Counter(getattr(r, key) for r in first)
  assert len(set(counts.values())) == 1
  # Every image of a group comes before one comes again.
  for name in counts:
    own = [r.image for r in first if getattr(r, key) == name]
    size = sum(getattr(r, key) == name for r in records)
    assert len(set(own[:size])) == min(size, len(own))


@pytest.mark.parametrize("kind", sampling.SAMPLINGS)
def test_order_depends_on_the_seed_alone(mixed, kind):
  records = unbalanced(mixed)
  whole = drawn(records, 6, seed=5, sampling=kind)
  workers = drawn(records, 6, seed=5, sampling=kind, num_workers=2)
  np.testing.assert_array_equal(whole, workers)
  other = drawn(records, 6, seed=6, sampling=kind)
  assert (whole != other).any()
  parts = [
    drawn(records, 6, seed=5, sampling=kind, process_index=i, process_count=2)
    for i in range(2)
  ]
  joined = np.stack(parts, axis=1).reshape(whole.shape)
  np.testing.assert_array_equal(whole, joined)


@pytest.mark.parametrize("kind", sampling.SAMPLINGS)
def test_a_resumed_iterator_gives_the_next_batch(mixed, kind):
  options = dict(batch_size=4, seed=5, sampling=kind, augmented=True)
  records = unbalanced(mixed)
  batches = training_batches(records, PREPROCESSING, num_threads=2, **options)
  for _ in range(60):  # beyond the first epoch of 55
    next(batches)
  state = batches.get_state()
  expected = next(batches)
  resumed = training_batches(records, PREPROCESSING, num_threads=2, **options)
  resumed.set_state(state)
  found = next(resumed)
  assert expected.keys() == found.keys() == {"image", "augmentation"}
  for name, value in expected.items():
    np.testing.assert_array_equal(value, found[name])


def test_unknown_sampling(mixed):
  with pytest.raises(ValueError, match="uniform, category, dataset"):
    sampling.groups(mixed.train, "fair")


def test_one_image_per_process_with_workers(mixed):
  batches = training_batches(
    mixed.train, PREPROCESSING, batch_size=1, seed=5, num_workers=1
  )
  assert next(batches)["image"].shape == (1, 28, 28, 3)
  batches.close()
