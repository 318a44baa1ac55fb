"""Archives that claim to hold more than they do."""

import io
import tracemalloc
import zipfile

import numpy as np
import pytest

from inp_former_jax.archives import npz_headers
from inp_former_jax.exporting import stablehlo
from inp_former_jax.weights.files import read_arrays


def header_of(shape: tuple[int, ...]) -> bytes:
  file = io.BytesIO()
  np.lib.format.write_array_header_1_0(
    file, {"descr": "<f4", "fortran_order": False, "shape": shape}
  )
  return file.getvalue()


def write(path, shape, values: int) -> None:
  """An array of a claimed shape, of which so many zeros are there."""
  with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
    with archive.open("a.npy", "w", force_zip64=True) as member:
      member.write(header_of(shape))
      for start in range(0, values, 2**20):
        member.write(bytes(4 * min(2**20, values - start)))


@pytest.mark.parametrize(
  "shape, values, words",
  [
    ((2**31,), 10, "needs 8589934592 bytes, but the file has 40 bytes"),
    ((2**25,), 2**25, "claims to unpack to 134217"),
  ],
)
def test_no_memory_is_taken_for_what_is_only_claimed(
  tmp_path, shape, values, words
):
  path = tmp_path / stablehlo.PARAMETERS
  write(path, shape, values)
  assert path.stat().st_size < 2**20
  tracemalloc.start()
  try:
    with pytest.raises(ValueError, match=words):
      npz_headers(path)
    with pytest.raises(ValueError, match=words) as caught:
      read_arrays(path)
    assert str(path) in str(caught.value)
    assert tracemalloc.get_traced_memory()[1] < 2**24
  finally:
    tracemalloc.stop()


def test_zeros_that_are_few_are_read(tmp_path):
  write(tmp_path / "a.npz", (2**20,), 2**20)
  np.testing.assert_array_equal(read_arrays(tmp_path / "a.npz")["a"], 0)


def test_an_export_is_checked_before_its_arrays_are_read(tmp_path, monkeypatch):
  write(tmp_path / stablehlo.PARAMETERS, (2**31,), 10)
  (tmp_path / stablehlo.MODEL).write_bytes(b"")
  monkeypatch.setattr(stablehlo.export, "deserialize", lambda content: None)
  with pytest.raises(ValueError, match="needs 8589934592 bytes"):
    stablehlo.load(tmp_path, None)
