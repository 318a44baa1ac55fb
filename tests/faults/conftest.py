"""A data set and a place for runs that the tests of faults share."""

import pathlib

import pytest

from tests.faults import running


@pytest.fixture
def runs():
  """Collects the processes of a test, and ends those that are left."""
  started: list[running.Run] = []
  yield started
  running.stop(*started)


@pytest.fixture
def workdir(tmp_path) -> pathlib.Path:
  return tmp_path / "run"
