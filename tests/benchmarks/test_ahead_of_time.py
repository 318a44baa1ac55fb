"""Compiling for devices that are not there."""

import importlib.util
import subprocess
import sys

import pytest

from inp_former_jax import sharding
from inp_former_jax.benchmarks import ahead_of_time

HAS_LIBTPU = importlib.util.find_spec("libtpu") is not None


@pytest.fixture
def config(config):
  config.model.encoder = "dinov2_vit_femto_14"
  config.model.dtype = "bfloat16"
  return config


def test_both_works_are_compiled_without_weights(config):
  programs = ahead_of_time.compile_works(config, sharding.make_mesh(1, 1))
  assert list(programs) == ["predict", "step"]
  predict, step = programs.values()
  # The step holds the optimizer's state too, and goes backwards.
  assert step.argument_bytes > 2 * predict.argument_bytes
  assert step.flops > 1.5 * predict.flops > 0
  table = ahead_of_time.format_table(programs, 2, 1).splitlines()
  assert [line.split()[0] for line in table] == ["work", "predict", "step"]
  assert f"{step.bytes_accessed / 2 / 1e9:.2f}" in table[2]


def test_a_batch_that_the_chips_cannot_share_is_refused(config):
  config.batch_size = 0
  with pytest.raises(ValueError, match="config.batch_size is 0"):
    ahead_of_time.compile_works(config, sharding.make_mesh(1, 1))


@pytest.mark.skipif(HAS_LIBTPU, reason="libtpu is installed")
def test_without_libtpu_the_command_says_how_to_get_it():
  command = [sys.executable, "-m", "inp_former_jax.aot", "--config=demo"]
  run = subprocess.run(command, capture_output=True, text=True)
  assert run.returncode != 0
  assert "pip install --target=FOLDER --no-deps libtpu" in run.stderr
  assert "Traceback" not in run.stderr


@pytest.mark.skipif(not HAS_LIBTPU, reason="libtpu is not installed")
@pytest.mark.slow
def test_the_kernel_compiles_for_tpus(config):
  config.model.encoder = "dinov2_vit_small_14"
  config.data.resize = config.data.crop = 392
  mesh = ahead_of_time.topology_mesh("v5e:2x2", 2, 1)
  programs = ahead_of_time.compile_works(config, mesh)
  assert all("softmax_attention" in p.text for p in programs.values())
  assert "all-gather" not in programs["predict"].text
  with pytest.raises(ValueError, match="has 4 chips"):
    ahead_of_time.topology_mesh("v5e:2x2", 8, 1)
  with pytest.raises(ValueError, match="`topology` is 'v9:2x2'"):
    ahead_of_time.topology_mesh("v9:2x2", 0, 1)
