"""A run says once when its first step was done, and how much was compiling."""

import re
import time

import jax
import jax.numpy as jnp
import pytest

from inp_former_jax.training.start_up import StartUp


@pytest.fixture
def no_cache():
  """Without a compilation cache, which other tests use."""
  before = jax.config.jax_compilation_cache_dir
  jax.config.update("jax_compilation_cache_dir", None)
  yield
  jax.config.update("jax_compilation_cache_dir", before)


def test_the_first_step_is_announced_once(no_cache, capsys):
  start_up = StartUp()
  time.sleep(0.2)

  @jax.jit
  def step(x):
    for _ in range(20):  # enough to compile that it shows in tenths of a second
      x = jnp.sort(jnp.sin(x) @ x)
    return x

  metrics = {"loss": step(jnp.ones((7, 7)))}
  start_up.first_step(metrics)
  start_up.first_step(metrics)
  (line,) = capsys.readouterr().out.splitlines()
  assert line == start_up.line
  seconds, compiling = map(float, re.findall(r"([\d.]+) s[; ]", line))
  assert 0.2 <= seconds < 60 and 0 < compiling <= seconds
  assert line.endswith("(no compilation cache).")


def test_only_what_was_compiled_since_counts(capsys):
  jax.jit(lambda x: jnp.sort(jnp.cos(x) @ x))(jnp.ones((8, 8)))
  start_up = StartUp()
  start_up.first_step({})
  assert "; 0.0 s of them went into compiling" in start_up.line
  assert "0 programs loaded, 0 added" in start_up.line
  assert capsys.readouterr().out


def test_excluded_work_does_not_count(no_cache, capsys):
  start_up = StartUp()
  with start_up.excluding():
    jax.jit(lambda x: jnp.sort(jnp.tan(x) @ x))(jnp.ones((9, 9)))
    time.sleep(1)
  start_up.first_step({})
  seconds, compiling = map(float, re.findall(r"([\d.]+) s[; ]", start_up.line))
  assert seconds < 1 and compiling == 0
  assert capsys.readouterr().out
