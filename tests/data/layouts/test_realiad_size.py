"""How long it takes to read all of Real-IAD, and the memory of it."""

import subprocess
import sys

import pytest

from tests.conftest import ROOT
from tests.data.layouts.test_realiad import entry, touch_files, write_json

MEASURE = """
import os, resource, sys, time
from inp_former_jax.data.layouts.realiad import read_realiad
start = time.perf_counter()
dataset = read_realiad(sys.argv[1])
seconds = time.perf_counter() - start
if os.path.exists("/proc/self/status"):
  # Not ru_maxrss: Linux counts into it the process that started this one.
  lines = open("/proc/self/status").read().splitlines()
  (peak,) = (int(x.split()[1]) * 1024 for x in lines if x.startswith("VmHWM"))
else:  # macOS, in bytes
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(len(dataset.train), len(dataset.test), seconds, peak / 1e6)
"""


def full_index(category: str, train: int, test: int) -> dict:
  """A JSON of the published size, with defects in half of the test images."""
  return {
    "meta": {"prefix": f"{category}/", "normal_class": "OK"},
    "train": [entry("part", "OK", i // 5, i % 5 + 1) for i in range(train)],
    "test": [
      entry("part", "AK" if i // 5 % 2 else "OK", 5000 + i // 5, i % 5 + 1)
      for i in range(test)
    ],
  }


@pytest.mark.slow
def test_all_of_it_in_10_seconds_and_500_megabytes(tmp_path):
  images = tmp_path / "realiad_1024"
  # Links to the same files: to make 200,000 takes longer than to read them.
  touch_files(images / "part", full_index("part", 1230, 3820))
  for number in range(30):
    category = f"category_{number:02d}"
    (images / category).symlink_to(images / "part")
    train, test = 1215 + 15 * (number == 0), 3819 + number % 2
    write_json(tmp_path, category, full_index(category, train, test))
  output = subprocess.run(
    [sys.executable, "-c", MEASURE, tmp_path],
    capture_output=True,
    text=True,
    check=True,
    cwd=ROOT,
  ).stdout
  train, test, seconds, megabytes = map(float, output.split())
  print(f"{seconds:.1f} s, {megabytes:.0f} MB")
  assert (train, test) == (36465, 114585)
  assert seconds < 10
  assert megabytes < 500
