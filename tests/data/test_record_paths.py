import dataclasses
import pathlib

import pytest

from inp_former_jax.data.image_files import StoredFile
from inp_former_jax.data.records import Record

IMAGE, MASK = pathlib.Path("/data/a.png"), pathlib.Path("/data/a_mask.png")
RECORD = Record(IMAGE, "cable", 1, "cut", masks=(MASK,))


def test_paths_are_image_and_masks():
  assert RECORD.paths == (IMAGE, MASK)


@pytest.mark.parametrize("field", ["image", "masks"])
def test_stored_files_have_no_paths(field):
  stored = StoredFile("folder", "test", 0, "a.png")
  value = stored if field == "image" else (stored,)
  record = dataclasses.replace(RECORD, **{field: value})
  with pytest.raises(TypeError):
    _ = record.paths
