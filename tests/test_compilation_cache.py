"""Compiled programs are kept where the user wants them, or nowhere."""

import os
import pathlib
import subprocess
import sys

import jax
import pytest

from inp_former_jax import compilation_cache
from tests.conftest import ROOT

FIELDS = (
  "jax_compilation_cache_dir",
  "jax_compilation_cache_max_size",
  "jax_persistent_cache_min_compile_time_secs",
)
PROGRAM = """
import jax
from inp_former_jax import compilation_cache
from inp_former_jax.training.start_up import StartUp

start_up = StartUp()
compilation_cache._MIN_SECONDS = 0
compilation_cache.enable()
start_up.first_step(jax.jit(lambda x: x * 2 + 1)(jax.numpy.arange(3.0)))
"""


@pytest.fixture
def settings(monkeypatch, tmp_path):
  """JAX's own settings, as they are without this project; put back."""
  before = {name: getattr(jax.config, name) for name in FIELDS}
  monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
  monkeypatch.delenv(compilation_cache.VARIABLE, raising=False)
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
  jax.config.update("jax_compilation_cache_dir", None)
  yield monkeypatch
  for name, value in before.items():
    jax.config.update(name, value)


def test_the_folder_lies_in_the_user_s_cache_folder(settings, tmp_path):
  folder = compilation_cache.enable()
  assert folder is not None and folder.is_dir()
  assert folder.parent == tmp_path / "home/inp_former_jax/compilation"
  assert folder.stat().st_mode & 0o077 == 0  # JAX runs what lies in it
  assert jax.config.jax_compilation_cache_dir == str(folder)
  assert 0 < jax.config.jax_compilation_cache_max_size < 2**31


def test_without_a_setting_it_is_in_the_home(settings):
  settings.delenv("XDG_CACHE_HOME")
  settings.setenv("HOME", "/somebody")
  parent = compilation_cache.cache_folder().parent
  assert parent == pathlib.Path("/somebody/.cache/inp_former_jax/compilation")


def test_another_folder_or_none(settings, tmp_path):
  settings.setenv(compilation_cache.VARIABLE, str(tmp_path / "mine"))
  assert compilation_cache.cache_folder().parent == tmp_path / "mine"
  settings.setenv(compilation_cache.VARIABLE, "off")
  assert compilation_cache.enable() is None
  assert jax.config.jax_compilation_cache_dir is None


def test_the_user_s_own_setting_of_jax_is_left(settings, tmp_path):
  settings.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path))
  sizes = jax.config.jax_compilation_cache_max_size
  assert compilation_cache.enable() is None
  assert jax.config.jax_compilation_cache_max_size == sizes
  assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("blocked", ["a file", "read-only"])
def test_a_folder_that_cannot_be_written_is_a_warning(
  settings, tmp_path, caplog, blocked
):
  parent = tmp_path / "there"
  if blocked == "a file":
    parent.write_text("")
  else:
    parent.mkdir()
    settings.setattr(os, "access", lambda *_: False)  # the tests may be root
  settings.setenv(compilation_cache.VARIABLE, str(parent))
  assert compilation_cache.enable() is None
  assert jax.config.jax_compilation_cache_dir is None
  (record,) = caplog.records
  assert record.levelname == "WARNING"
  message = record.getMessage()
  assert str(parent) in message and compilation_cache.VARIABLE in message
  assert "\n" not in message


def test_without_a_home_it_is_a_warning(settings, caplog):
  settings.delenv("XDG_CACHE_HOME")

  def homeless(_):
    raise RuntimeError("Could not determine home directory.")

  settings.setattr(pathlib.Path, "expanduser", homeless)
  assert compilation_cache.enable() is None
  (record,) = caplog.records
  assert "home directory. Set INP_FORMER" in record.getMessage()


def test_another_cpu_or_version_has_another_folder(settings):
  folders = {compilation_cache.cache_folder()}
  settings.setattr(jax, "__version__", "0.0.1")
  folders.add(compilation_cache.cache_folder())
  settings.setattr(
    pathlib.Path, "read_text", lambda *_, **__: "flags : avx2\ncpu MHz : 1\n"
  )
  folders.add(compilation_cache.cache_folder())
  digest = compilation_cache._cpu_digest()
  settings.setattr(
    pathlib.Path, "read_text", lambda *_, **__: "flags : avx2\ncpu MHz : 2\n"
  )
  assert compilation_cache._cpu_digest() == digest  # the clock changes
  assert len(folders) == 3


def test_the_second_process_loads_what_the_first_has_compiled(tmp_path):
  environment = os.environ | {compilation_cache.VARIABLE: str(tmp_path)}
  environment.pop("JAX_COMPILATION_CACHE_DIR", None)
  environment.pop("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", None)

  def run() -> str:
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(
      command, cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0 and not done.stderr, done.stderr
    return done.stdout

  first, second = run(), run()
  entries = list(tmp_path.glob("*/jit_*-cache"))
  count = len(entries)
  assert count and f"cache: 0 programs loaded, {count} added" in first, first
  assert f"cache: {count} programs loaded, 0 added" in second, second
  for entry in entries:  # as a killed process leaves it
    entry.write_bytes(entry.read_bytes()[:100])
  done = subprocess.run(
    [sys.executable, "-c", PROGRAM],
    cwd=ROOT,
    env=environment,
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0 and "The first step was done" in done.stdout
