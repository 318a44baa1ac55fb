"""Memory that is freed is kept where that makes a step faster."""

import os
import platform
import subprocess
import sys

import jax
import pytest

from inp_former_jax import freed_memory
from tests.conftest import ROOT

# Blocks as large as the temporaries of a step, each freed before the next, on a
# thread as XLA has them. Prints whether they are kept, and the page faults of
# all but the first block.
PROGRAM = """
import concurrent.futures, resource
import numpy as np
from inp_former_jax import freed_memory

def fill():
  np.full(16_000_000, 1, np.uint8)

kept = freed_memory.keep()
with concurrent.futures.ThreadPoolExecutor(1) as pool:
  pool.submit(fill).result()
  before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
  for _ in range(20):
    pool.submit(fill).result()
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
needs_glibc = pytest.mark.skipif(
  platform.libc_ver()[0] != "glibc", reason="needs glibc"
)


def run(**variables: str) -> tuple[bool, int]:
  environment = {
    name: value
    for name, value in os.environ.items()
    if not name.startswith(("MALLOC_", "GLIBC_TUNABLES"))
  }
  done = subprocess.run(
    [sys.executable, "-c", PROGRAM],
    env=environment | {"JAX_PLATFORMS": "cpu"} | variables,
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=True,
  )
  kept, faults = done.stdout.split()
  return kept == "True", int(faults)


@needs_glibc
def test_a_block_is_used_again_unless_the_user_has_settings():
  kept, faults = run()
  changed, many = run(MALLOC_MMAP_THRESHOLD_="1000000")
  assert kept and not changed
  assert 4 * faults < many  # how many depends on the size of the pages


@pytest.fixture
def mallopt_fails(monkeypatch):
  """Raises an AssertionError where a setting of the allocator is changed."""

  def fail(name):
    raise AssertionError("the allocator's settings are changed")

  monkeypatch.setattr(freed_memory.ctypes, "CDLL", fail)
  return monkeypatch


def test_nothing_happens_where_another_device_computes(mallopt_fails):
  before = jax.config.values["jax_platforms"]
  try:
    jax.config.update("jax_platforms", "cuda,cpu")
    assert not freed_memory.keep()
  finally:
    jax.config.update("jax_platforms", before)


def test_nothing_happens_without_glibc(mallopt_fails):
  mallopt_fails.setattr(freed_memory.platform, "libc_ver", lambda: ("", ""))
  assert not freed_memory.keep()
