"""Unreadable training images are replaced, listed, and never evaluated."""

import itertools

import numpy as np
import pytest
from PIL import Image

from inp_former_jax import sharding, training_inputs
from inp_former_jax.data import loader, unreadable
from inp_former_jax.data.errors import DataError
from inp_former_jax.data.records import Dataset, Record
from inp_former_jax.data.transforms import Preprocessing, load_image

PREPROCESSING = Preprocessing((14, 14), (14, 14))


def load(file):
  return load_image(file, PREPROCESSING)


@pytest.fixture
def records(tmp_path):
  """Images whose only grey value is their position; 3, 4 and 9 are damaged."""
  folder = tmp_path / "images"
  folder.mkdir()
  found = []
  for i in range(10):
    path = folder / f"{i:02}.png"
    Image.new("L", (16, 16), i).save(path)
    if i in (3, 4, 9):
      path.write_bytes(path.read_bytes()[:-30])
    found.append(Record(path, "nut", 0, "good"))
  return tuple(found)


def take(records, folder, count, *, start=0, **options):
  batches = loader.training_batches(
    records,
    PREPROCESSING,
    batch_size=2,
    seed=1,
    load=unreadable.skipping_unreadable(records, load, folder),
    **options,
  )
  batches.set_state({"next_batch": start})
  found = [b["image"] for b in itertools.islice(batches, count)]
  batches.close()
  return [image[:, 0, 0, 0].tolist() for image in found]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_the_next_readable_image_takes_the_place(
  records, tmp_path, num_workers
):
  batches = take(records, tmp_path, 10, num_workers=num_workers)
  assert {len(batch) for batch in batches} == {2}
  for epoch in (batches[:5], batches[5:]):
    # 5 is read for 3 and 4 as well, and 0 for 9.
    assert sorted(sum(epoch, [])) == [0, 0, 1, 2, 5, 5, 5, 6, 7, 8]
  listed = unreadable.unreadable_images(tmp_path)
  assert sorted(name[-6:] for name in listed) == ["03.png", "04.png", "09.png"]
  assert all("truncated" in error for error in listed.values())


def test_a_resumed_run_sees_the_same_images(records, tmp_path):
  whole = take(records, tmp_path, 10)
  assert take(records, tmp_path, 4, start=6) == whole[6:]


def test_nothing_readable_is_an_error(records, tmp_path):
  for record in records:
    record.image.write_bytes(b"no image")
  with pytest.raises(DataError, match="None of the 10 .*unreadable_images"):
    take(records, tmp_path, 1)


def test_nothing_is_listed_of_sound_images(records, tmp_path):
  take(records[:3], tmp_path, 3)
  assert unreadable.unreadable_images(tmp_path) == {}
  assert unreadable.describe_skipped(tmp_path) == ""
  assert not (tmp_path / unreadable.LIST).exists()


def test_every_process_has_a_list_of_its_own(records, tmp_path):
  for index in range(2):
    read = unreadable.skipping_unreadable(records, load, tmp_path, index)
    read(records[(3, 9)[index]].image)
  names = {"unreadable_images.jsonl", "unreadable_images.1.jsonl"}
  assert {path.name for path in tmp_path.glob("*.jsonl")} == names
  assert len(unreadable.unreadable_images(tmp_path)) == 3  # 3, 4 and 9
  assert unreadable.describe_skipped(tmp_path) == (
    "3 training images could not be read; see unreadable_images.1.jsonl, "
    f"unreadable_images.jsonl in {tmp_path}."
  )


def test_a_line_that_was_cut_off_does_no_harm(records, tmp_path):
  (tmp_path / unreadable.LIST).write_text('{"image": "a.png", "er')
  assert unreadable.unreadable_images(tmp_path) == {}
  take(records, tmp_path, 10)
  assert len(unreadable.unreadable_images(tmp_path)) == 3


def test_pixels_are_those_of_the_function(records, tmp_path):
  read = unreadable.skipping_unreadable(records, load, tmp_path)
  np.testing.assert_array_equal(read(records[2].image), load(records[2].image))


@pytest.mark.parametrize("cache", ["off", "images"])
def test_the_field_decides(config, records, tmp_path, cache):
  config.cache, config.cache_dir = cache, str(tmp_path / "cache")
  dataset = Dataset("nuts", records, ())

  def run():
    return training_inputs.training_inputs(
      config, dataset, PREPROCESSING, sharding.make_mesh(), tmp_path
    )

  stopping = run()
  with pytest.raises(DataError, match="0[349].png.*truncated"):
    list(itertools.islice(stopping.batches, 4))
  stopping.close()
  config.data.skip_unreadable = True
  skipping = run()
  list(itertools.islice(skipping.batches, 10))
  skipping.close()
  assert len(unreadable.unreadable_images(tmp_path)) == 3


def test_features_of_other_images_are_not_kept(config, records, tmp_path):
  config.data.skip_unreadable, config.cache = True, "features"
  with pytest.raises(ValueError, match="`skip_unreadable`=True .*`cache`=im"):
    training_inputs.training_inputs(
      config, Dataset("nuts", records, ()), PREPROCESSING, None, tmp_path
    )
