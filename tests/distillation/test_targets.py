"""The teacher's answers: computed once, resumed, never mixed up."""

import pickle

import numpy as np
import pytest

from inp_former_jax.distillation.targets import compute_targets
from inp_former_jax.training.checkpoints.checkpoint import CheckpointError

SHAPES = ((2, 2, 3), (2, 4, 5))


class FakeViews:
  """View i is full of i."""

  def __init__(self, count, broken=None):
    self.count, self.broken, self.asked = count, broken, []

  def __len__(self):
    return self.count

  def __getitem__(self, index):
    if index == self.broken:
      raise OSError("stopped here")
    self.asked.append(index)
    return np.full(SHAPES[0], index, np.uint8)


def teacher(images):
  """Groups 0 and 1 are the view's number plus the channel, and its double."""
  assert len(images) == 3  # always a whole batch: one compilation
  number = images[:, 0, 0, 0].astype(np.float32)[:, None, None]
  group = number + np.arange(5) + np.zeros((4, 1))
  return np.stack([group, 2 * group], axis=1)


def compute(folder, views, identity="a"):
  return compute_targets(
    views,
    teacher,
    folder,
    {"teacher": identity},
    batch_size=3,
    shapes=SHAPES,
    report=lambda done: None,
  )


def test_every_view_has_its_answer(tmp_path):
  targets = compute(tmp_path / "train", FakeViews(8))
  assert len(targets) == 8
  for index in range(8):
    item = targets[index]
    assert (item["image"] == index).all()
    np.testing.assert_array_equal(item["groups"][0, 1], index + np.arange(5))
    np.testing.assert_array_equal(item["groups"][1], 2 * item["groups"][0])
  assert item["groups"].dtype == np.float16
  assert len(pickle.dumps(targets)) < 1000  # for worker processes


def test_statistics_are_those_of_all_patches(tmp_path):
  targets = compute(tmp_path / "train", FakeViews(8))
  everything = np.stack([targets[i]["groups"] for i in range(8)])
  mean, deviation = targets.statistics()
  assert mean.shape == deviation.shape == (2, 1, 5)
  for group in range(2):
    np.testing.assert_allclose(
      mean[group, 0], everything[:, group].mean((0, 1), np.float64), rtol=1e-6
    )
    np.testing.assert_allclose(
      deviation[group, 0],
      everything[:, group].std((0, 1), np.float64),
      rtol=1e-6,
    )


def test_nothing_is_computed_twice(tmp_path):
  compute(tmp_path / "train", FakeViews(8))
  views = FakeViews(8)
  compute(tmp_path / "train", views)
  assert views.asked == []


def test_goes_on_after_a_stop(tmp_path):
  with pytest.raises(OSError, match="stopped here"):
    compute(tmp_path / "train", FakeViews(60, broken=40))
  views = FakeViews(60)
  targets = compute(tmp_path / "train", views)
  assert 0 < views.asked[0] <= 40  # not from the beginning
  assert views.asked[-1] == 59
  assert all((targets[i]["image"] == i).all() for i in range(60))


def test_answers_of_another_teacher_are_refused(tmp_path):
  compute(tmp_path / "train", FakeViews(8))
  with pytest.raises(CheckpointError, match="teacher: 'a' there, 'b' here"):
    compute(tmp_path / "train", FakeViews(8), identity="b")
