"""Where the maps of unlabelled images go, and where they must not."""

import pathlib
import types

import pytest

from inp_former_jax.data.errors import DataError
from inp_former_jax.data.records import Record
from inp_former_jax.evaluation import submission


def record(name: str, category: str = "can", defect: str = "test") -> Record:
  return Record(pathlib.Path("/data") / name, category, 0, defect)


def refused(tmp_path, *records) -> str:
  """The error, before the model (None) or the reading is asked for anything."""
  with pytest.raises(DataError) as caught:
    submission.write_predictions(None, records, None, tmp_path)
  return str(caught.value)


def test_images_of_the_same_name_do_not_replace_each_other(tmp_path):
  message = refused(tmp_path, record("a.png"), record("b.png"), record("a.jpg"))
  assert "/data/a.png and /data/a.jpg" in message
  assert str(tmp_path / "predictions" / "can" / "test" / "a.tiff") in message


def test_a_link_leads_no_map_out_of_the_workdir(tmp_path):
  workdir = tmp_path / "workdir"
  (workdir / "predictions").mkdir(parents=True)
  (workdir / "predictions" / "can").symlink_to(tmp_path)
  message = refused(workdir, record("a.png"))
  assert f"would be written to {tmp_path / 'test' / 'a.tiff'}" in message
  assert not (tmp_path / "test").exists()


def test_a_name_that_leads_out_is_refused_even_without_the_check_of_records(
  tmp_path,
):
  image = pathlib.Path("/data/a.png")
  forged = types.SimpleNamespace(category="../../x", defect="y", image=image)
  assert "would be written to" in refused(tmp_path / "workdir", forged)


def test_a_name_that_is_too_long_for_a_map_is_refused_before_the_work(tmp_path):
  message = refused(tmp_path, record("a" * 251 + ".png"))
  assert "longer than 255 bytes" in message
