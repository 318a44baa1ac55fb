"""Compiling is measured although JAX's compilation cache is on."""

import jax
import jax.numpy as jnp
import pytest
from jax.experimental.compilation_cache import compilation_cache

from inp_former_jax.benchmarks import compiling


@pytest.fixture
def cache(tmp_path):
  """JAX's compilation cache in a folder of its own, for all programs."""
  settings = {
    "jax_compilation_cache_dir": str(tmp_path / "cache"),
    "jax_persistent_cache_min_compile_time_secs": 0.0,
  }
  before = {name: jax.config.values[name] for name in settings}
  for name, value in settings.items():
    jax.config.update(name, value)
  compilation_cache.reset_cache()
  yield tmp_path / "cache"
  for name, value in before.items():
    jax.config.update(name, value)
  compilation_cache.reset_cache()


def kept(folder) -> int:
  return len(list(folder.glob("*-cache")))


def test_nothing_is_read_from_the_cache_or_written_to_it(cache):
  x = jnp.ones(3)
  before = kept(cache)
  program = compiling.compile_anew(jax.jit(lambda x: x * 3 + 1), x)
  assert kept(cache) == before
  assert program.compile_seconds > 0
  assert program.run(x).tolist() == [4.0, 4.0, 4.0]
  # Afterwards, the cache is used as before.
  jax.jit(lambda x: x * 5 + 1)(x)
  assert kept(cache) == before + 1


def test_the_compiler_tells_memory_and_operations():
  x = jnp.ones((64, 32))
  program = compiling.compile_anew(jax.jit(lambda x: x @ x.T), x)
  assert program.flops == 2 * 64 * 32 * 64
  assert program.argument_bytes == 64 * 32 * 4
  assert program.output_bytes == 64 * 64 * 4
  assert program.bytes_accessed and program.temporary_bytes is not None
  assert "dot" in program.text


def test_arguments_may_have_names():
  program = compiling.compile_anew(
    jax.jit(lambda x, y=None, z=None: x + z), jnp.ones(2), z=jnp.ones(2)
  )
  assert program.run(jnp.ones(2), z=jnp.ones(2)).tolist() == [2.0, 2.0]
