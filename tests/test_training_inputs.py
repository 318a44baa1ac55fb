"""Caches change how fast a run trains, and not what it trains."""

import json
import os

import jax
import numpy as np
import pytest

from inp_former_jax import (
  experiment,
  protocols,
  sharding,
  train,
  training_inputs,
)
from inp_former_jax.data import mixing, training_examples, transforms
from inp_former_jax.training import feature_cache, feature_places, train_step
from inp_former_jax.training.progress import TrainingLog
from tests.conftest import tiny_config
from tests.data.layouts import layout_trees
from tests.test_train import trained_arrays

STEPS = 9  # of four in an epoch


class Interrupted(Exception):
  pass


def cut(config, tmp_path, cache):
  config = config.copy_and_resolve_references()
  config.steps, config.checkpoint.every_steps = STEPS, 3
  config.cache, config.cache_dir = cache, str(tmp_path / "cache")
  return config


def read_losses(workdir):
  lines = (workdir / "log.jsonl").read_text().splitlines()
  return np.array([json.loads(line)["loss"] for line in lines])


@pytest.fixture(scope="module")
def uncached(dataset_root, tmp_path_factory):
  """An uncached run: its workdir and its result."""
  workdir = tmp_path_factory.mktemp("uncached")
  config = cut(tiny_config(dataset_root), workdir, "off")
  return workdir, train.train_and_evaluate(config, workdir)


@pytest.fixture
def encoded(monkeypatch):
  """Counts the images that the cache has the encoder compute."""
  numbers = []
  original = feature_cache._compute

  def compute(*arguments):
    for indices, groups in original(*arguments):
      numbers.extend(indices.tolist())
      yield indices, groups

  monkeypatch.setattr(feature_cache, "_compute", compute)
  return numbers


def assert_same_run(workdir, uncached, exactly=False):
  losses, expected = read_losses(workdir), read_losses(uncached[0])
  np.testing.assert_allclose(losses, expected, rtol=0 if exactly else 1e-6)
  arrays = trained_arrays(workdir, STEPS)
  for name, value in trained_arrays(uncached[0], STEPS).items():
    tolerance = 0 if exactly else 1e-6
    np.testing.assert_allclose(
      arrays[name], value, rtol=0, atol=tolerance, err_msg=name
    )


def only_places(monkeypatch, *places):
  """Leaves room only in these places."""
  functions = {
    "device": "free_device_memory",
    "host": "free_host_memory",
    "disk": "free_disk",
  }
  for place, function in functions.items():
    free = 1 << 40 if place in places else 0
    monkeypatch.setattr(feature_places, function, lambda *unused, x=free: x)


@pytest.mark.parametrize(
  "cache, places",
  [
    ("images", ()),
    ("features", ("device", "host", "disk")),
    *(
      pytest.param("features", places, marks=pytest.mark.slow)
      for places in (
        *(("host", "disk"), ("disk",), ("device", "host"), ("host",)),
        ("device", "disk"),  # no room on the way to the devices
      )
    ),
  ],
)
def test_training_is_that_without_a_cache(
  config, tmp_path, uncached, encoded, monkeypatch, capsys, cache, places
):
  config = cut(config, tmp_path, cache)
  if cache == "features":
    only_places(monkeypatch, *places)
  for number in (1, 2):  # computing, then from the cache
    workdir = tmp_path / str(number)
    result = train.train_and_evaluate(config, workdir)
    assert_same_run(workdir, uncached)
    assert result.mean == pytest.approx(uncached[1].mean, abs=1e-6)
  if cache == "features":
    times = 1 if "disk" in places else 2
    assert len(encoded) == times * 20  # 18 images, in whole batches of four
    printed = capsys.readouterr().out
    kept = "kept in" if "disk" in places else "not kept: the disk is too full"
    where = "disk" if "host" not in places else places[0]
    assert feature_places._NAMES[where] in printed and kept in printed
    assert "Features of 18 of 18 images" in printed


@pytest.mark.slow
def test_what_the_file_holds_is_used_on_a_full_disk(
  config, tmp_path, uncached, encoded, monkeypatch, capsys
):
  config = cut(config, tmp_path, "features")
  train.train_and_evaluate(config, tmp_path / "1")
  (path,) = (tmp_path / "cache").glob("*.rows")
  with open(path, "r+b") as file:  # row 5 is lost
    file.seek(5 * path.stat().st_size // 18)
    file.write(bytes(8))
  only_places(monkeypatch, "host")
  del encoded[:]
  capsys.readouterr()
  train.train_and_evaluate(config, tmp_path / "2")
  assert set(encoded) == {5}
  printed = capsys.readouterr().out
  assert "17 computed before" in printed and "1 of them not kept" in printed
  assert_same_run(tmp_path / "2", uncached)


def test_no_room_is_refused_with_the_figures(config, tmp_path, monkeypatch):
  only_places(monkeypatch)
  with pytest.raises(ValueError, match="fit nowhere.*GB.*config.cache_dir"):
    train.train_and_evaluate(cut(config, tmp_path, "features"), tmp_path / "w")


def test_an_unknown_cache_is_refused(config, tmp_path):
  with pytest.raises(ValueError, match="config.cache is 'all'.*features"):
    train.train_and_evaluate(cut(config, tmp_path, "all"), tmp_path / "w")


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
  base = tmp_path_factory.mktemp("mixed")
  parts = layout_trees.mvtec(base / "parts", ("bolt", "nut"))
  visa = layout_trees.visa(base / "visa")
  return mixing.read_sources([("mvtec", str(parts)), ("visa", str(visa))])


@pytest.mark.parametrize("sampling", ["uniform", "category", "dataset"])
@pytest.mark.parametrize("shots", [0, 1])
def test_features_of_a_mixture_come_in_the_order_of_its_images(
  config, tmp_path, monkeypatch, mixed, sampling, shots
):
  class Numbers:
    def example(self, number):
      return {"index": np.int32(number)}

  monkeypatch.setattr(
    training_inputs, "_compute_features", lambda *unused: Numbers()
  )
  config.data.sampling, config.data.shots = sampling, shots
  preprocessing = transforms.Preprocessing((32, 32), (28, 28))
  mesh = sharding.make_mesh()
  runs = {
    cache: training_inputs.training_inputs(
      cut(config, tmp_path, cache), mixed, preprocessing, mesh, tmp_path
    )
    for cache in ("off", "features")
  }
  runs["features"].prepare(None)
  items, _ = training_examples.epoch(mixed.train, shots > 0, sampling)
  for _ in range(12):
    images = next(runs["off"].batches)
    for i, number in enumerate(next(runs["features"].batches)["index"]):
      record, way = items[number] if shots else (items[number], None)
      expected = transforms.load_image(record.image, preprocessing)
      np.testing.assert_array_equal(images["image"][i], expected)
      assert not shots or images["augmentation"][i] == way
  for inputs in runs.values():
    inputs.close()


def interrupted_after(step, config, workdir):
  original = TrainingLog.step

  def log(self, number, *args, **kwargs):
    original(self, number, *args, **kwargs)
    if number == step:
      raise Interrupted

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(TrainingLog, "step", log)
    with pytest.raises(Interrupted):
      train.train_and_evaluate(config, workdir)


@pytest.mark.parametrize(
  "caches",
  [
    ("features",) * 3,
    pytest.param(("images",) * 3, marks=pytest.mark.slow),
    pytest.param(("off", "features", "images"), marks=pytest.mark.slow),
  ],
)
def test_a_run_resumes_with_any_cache(config, tmp_path, uncached, caches):
  workdir = tmp_path / "workdir"
  for step, cache in zip((4, 7), caches, strict=False):
    interrupted_after(step, cut(config, tmp_path, cache), workdir)
  train.train_and_evaluate(cut(config, tmp_path, caches[-1]), workdir)
  whole = tmp_path / "whole"
  train.train_and_evaluate(cut(config, tmp_path, caches[0]), whole)
  if len(set(caches)) == 1:
    assert_same_run(workdir, (whole,), exactly=True)
  assert_same_run(workdir, uncached)


@pytest.mark.slow
def test_an_interrupted_computation_is_continued(
  config, tmp_path, encoded, monkeypatch
):
  config, original = cut(config, tmp_path, "features"), transforms._decoded
  decoded = []

  def decode(path, mode):
    decoded.append(path)
    if len(decoded) > 14:
      raise Interrupted
    return original(path, mode)

  config.data.num_threads = 1
  with monkeypatch.context() as patch:
    patch.setattr(transforms, "_decoded", decode)
    with pytest.raises(Interrupted):
      train.train_and_evaluate(config, tmp_path / "w")
  before = set(encoded)
  assert len(before) >= 4
  del encoded[:]
  train.train_and_evaluate(config, tmp_path / "w")
  assert not before & set(encoded) and len(before | set(encoded)) == 18


@pytest.mark.slow
def test_damaged_features_are_computed_again(
  config, tmp_path, uncached, encoded
):
  config = cut(config, tmp_path, "features")
  train.train_and_evaluate(config, tmp_path / "1")
  (path,) = (tmp_path / "cache").glob("*.rows")
  with open(path, "r+b") as file:
    file.seek(5 * path.stat().st_size // 18 + 500)
    file.write(b"damage")
  del encoded[:]
  train.train_and_evaluate(config, tmp_path / "2")
  assert set(encoded) == {5}
  os.truncate(path, 1000)
  del encoded[:]
  train.train_and_evaluate(config, tmp_path / "3")
  assert set(encoded) == set(range(18))
  for workdir in ("2", "3"):
    assert_same_run(tmp_path / workdir, uncached)


@pytest.mark.slow
@pytest.mark.long
def test_other_encoders_and_sizes_have_caches_of_their_own(
  config, tmp_path, encoded
):
  def train_one(**changes):
    own = cut(config, tmp_path, "features")
    with own.ignore_type():
      own.update_from_flattened_dict(changes | {"steps": 1})
    del encoded[:]
    train.train_and_evaluate(own, tmp_path / str(sorted(changes.items())))
    return len(set(encoded))

  assert train_one() == 18
  assert train_one(batch_size=6) == 0
  assert train_one(**{"data.crop": 56}) == 18
  assert train_one(**{"model.encoder": "dinov2_vit_femto_14"}) == 18
  assert train_one(**{"model.dtype": "bfloat16"}) == 18
  assert train_one(seed=2) == 18  # the encoder is random
  assert train_one(**{"data.categories": ("washer",)}) == 6
  sizes = [p.stat().st_size for p in (tmp_path / "cache").glob("*.rows")]
  assert len(sizes) == 6 and min(sizes) < max(sizes)


@pytest.mark.slow
def test_few_shots_are_cached_in_all_ways(config, tmp_path, encoded):
  config.data.shots = 1
  runs = {c: cut(config, tmp_path, c) for c in ("off", "features")}
  for cache, own in runs.items():
    train.train_and_evaluate(own, tmp_path / cache)
  assert set(encoded) == set(range(3 * 22))
  assert_same_run(tmp_path / "features", (tmp_path / "off",))


@pytest.mark.slow
def test_one_model_for_each_category_frees_the_memory(
  config, tmp_path, monkeypatch
):
  config = cut(config, tmp_path, "features")
  config.protocol, config.batch_size = "single_class", 2
  seen = []
  original = feature_cache.prepare

  def prepare(*arguments, **options):
    seen.append(tables())
    return original(*arguments, **options)

  def tables() -> int:
    return len([x for x in jax.live_arrays() if x.shape[:2] == (6, 2)])

  monkeypatch.setattr(feature_cache, "prepare", prepare)
  protocols.train_and_evaluate(config, tmp_path / "w")
  assert seen == [0, 0, 0] and tables() == 0


def test_the_step_takes_the_groups_that_the_encoder_gives(config, tmp_path):
  mesh = sharding.make_mesh()
  model = experiment.create_model(config, mesh, tmp_path)
  optimizer = experiment.make_optimizer(
    config, experiment.make_schedule(config, 10)
  )
  step = jax.jit(train_step.make_train_step(model.graphdef, optimizer))
  encode = jax.jit(train_step.make_encode(model.graphdef))
  images = np.random.default_rng(0).integers(0, 256, (4, 70, 70, 3), np.uint8)
  trainable = model.initial_trainable()
  state = trainable, optimizer.init(trainable)
  groups = encode(trainable, model.frozen, images)
  assert groups.shape[:3] == (4, 2, 25)
  found = step(state, model.frozen, groups=groups)
  expected = step(state, model.frozen, images)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7),
    *(found, expected),
  )
