"""What differs between processes is named, with both values."""

import pytest

from inp_former_jax.processes import agreement, messages


def test_one_process_agrees_with_itself():
  assert not messages.several()
  agreement.require_same({"steps": 3})


def test_every_difference_is_described():
  theirs = {"config.seed": 1, "config.crop": 28, "old": None}
  mine = {"config.seed": 2, "config.crop": 28, "new": "x"}
  assert agreement.differences(theirs, mine) == [
    "config.seed is 1 there, 2 here",
    "new is 'absent' there, 'x' here",
    "old is None there, 'absent' here",
  ]
  assert agreement.differences(mine, mine) == []


class Store:
  """The messages of two processes, of which this one is the second."""

  def __init__(self, monkeypatch, first: str | None):
    self.waited = []
    monkeypatch.setattr(messages, "several", lambda: True)
    monkeypatch.setattr(messages, "index", lambda: 1)
    monkeypatch.setattr(messages, "get", lambda key, seconds: first)
    monkeypatch.setattr(
      messages, "wait_for_all", lambda name, seconds: self.waited.append(name)
    )


def test_all_wait_until_all_have_compared(monkeypatch):
  store = Store(monkeypatch, '{"mesh": [2, 1]}')
  agreement.require_same({"mesh": (2, 1)})  # as JSON has it
  assert len(store.waited) == 1


def test_many_differences_are_counted(monkeypatch):
  Store(monkeypatch, "{}")
  facts = {f"field{i:02}": i for i in range(12)}
  with pytest.raises(
    agreement.DisagreementError,
    match="^Process 1 disagrees with process 0: field00 .*field09.*and 2 more",
  ):
    agreement.require_same(facts)


def test_a_first_process_that_does_not_come_is_named(monkeypatch):
  Store(monkeypatch, None)
  with pytest.raises(
    RuntimeError, match="Process 0 did not reach this check within 30"
  ):
    agreement.require_same({})
