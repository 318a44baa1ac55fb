"""Compiling for devices that are not there."""

import importlib.util
import subprocess
import sys

import jax
import pytest

from inp_former_jax import sharding
from inp_former_jax.benchmarks import (
  ahead_of_time,
  ahead_of_time_table,
  collectives,
  compiling,
  largest_batch,
  tpu_chips,
)
from inp_former_jax.benchmarks.collectives import Collective

HAS_LIBTPU = importlib.util.find_spec("libtpu") is not None
needs_libtpu = pytest.mark.skipif(
  not HAS_LIBTPU, reason="libtpu is not installed"
)


@pytest.fixture
def config(config):
  config.model.encoder = "dinov2_vit_femto_14"
  config.model.dtype = "bfloat16"
  return config


def test_both_works_are_compiled_without_weights(config):
  mesh = sharding.make_mesh(1, 1)
  works = {
    work: ahead_of_time.compile_work(config, mesh, work)
    for work in ahead_of_time.WORKS
  }
  assert list(works) == ["predict", "step"]
  predict, step = works.values()
  # The step holds the optimizer's state too (three moments and a count), and
  # goes backwards.
  assert predict.parts["optimizer state"] == 0
  trainable = predict.parts["trainable parameters"]
  assert step.parts["optimizer state"] == pytest.approx(3 * trainable, rel=0.01)
  assert step.program.flops > 1.5 * predict.program.flops > 0
  for work in works.values():
    held = sum(work.parts.values())
    assert work.program.argument_bytes == pytest.approx(held, rel=0.01)
    assert work.memory_bytes > held + work.program.temporary_bytes / 2
    assert not work.exchanges
  # The donated state makes room for the new one.
  assert step.program.alias_bytes > 3.9 * trainable
  records = {
    name: ahead_of_time_table.record(work, 2, mesh)
    for name, work in works.items()
  }
  table = ahead_of_time_table.format_table(records).splitlines()
  assert table[0].split()[-2:] == ["predict", "step"]
  assert f"{step.program.flops / 1e9:.1f} GFLOP" in "\n".join(table)


def test_a_batch_that_the_chips_cannot_share_is_refused(config):
  config.batch_size = 0
  with pytest.raises(ValueError, match="config.batch_size is 0"):
    ahead_of_time.compile_work(config, sharding.make_mesh(1, 1), "step")


def test_what_does_not_fit_is_a_result(config, monkeypatch):
  def compile_anew(*_):
    raise jax.errors.JaxRuntimeError(
      "RESOURCE_EXHAUSTED: E1000: CompileTimeHbmOom: Ran out of memory on HBM, "
      "19.11G exceeds 15.75G.\nMore"
    )

  monkeypatch.setattr(compiling, "compile_anew", compile_anew)
  mesh = sharding.make_mesh(1, 1)
  work = ahead_of_time.compile_work(config, mesh, "step")
  assert work.program is None and work.memory_bytes is None
  assert work.refusal == "Ran out of memory on HBM, 19.11G exceeds 15.75G."
  record = ahead_of_time_table.record(work, 2, mesh)
  table = ahead_of_time_table.format_table({"step": record}).splitlines()
  assert table[-1].split() == ["fits", "no"]


def test_other_errors_of_the_compiler_are_not_hidden(config, monkeypatch):
  def compile_anew(*_):
    raise jax.errors.JaxRuntimeError("INTERNAL: a fault")

  monkeypatch.setattr(compiling, "compile_anew", compile_anew)
  with pytest.raises(RuntimeError, match="a fault"):
    ahead_of_time.compile_work(config, sharding.make_mesh(1, 1), "step")


def test_times_follow_from_the_rates_of_a_chip():
  chip = tpu_chips.CHIPS["TPU v5 lite"]
  sent = [Collective("all-reduce", 2 * 10**9, 2, 1, "")]
  times = tpu_chips.shortest_times(chip, 197e12, 819e9, sent)
  assert times == {"compute": 1.0, "HBM": 1.0, "ICI": 0.01}
  assert tpu_chips.find(jax.devices()[0]) is None


@pytest.mark.parametrize("capacity", [0, 1, 2, 31, 32, 100, 333, 1000])
@pytest.mark.parametrize("start", [1, 16, 500])
def test_the_largest_batch_is_found_in_few_attempts(capacity, start):
  tried = []

  def memory(batch):
    tried.append(batch)
    return None if batch > capacity else 1000 + 7 * batch

  found = largest_batch.search(memory, 1000 + 7 * capacity, start=start)
  assert capacity - max(1, capacity // 16) < found <= capacity
  assert len(tried) == len(set(tried)) <= 12


@pytest.mark.parametrize("limit", [0, 10**9])
def test_a_wrong_prediction_costs_attempts_only(limit):
  tried = []

  def memory(batch):
    tried.append(batch)
    return None if batch > 300 else 1000 + 7 * batch

  assert 282 <= largest_batch.search(memory, limit, start=64) <= 300
  assert len(tried) <= 12


@pytest.mark.skipif(HAS_LIBTPU, reason="libtpu is installed")
def test_without_libtpu_the_command_says_how_to_get_it():
  command = [sys.executable, "-m", "inp_former_jax.aot", "--config=demo"]
  run = subprocess.run(command, capture_output=True, text=True)
  assert run.returncode != 0
  assert "pip install --target=FOLDER --no-deps libtpu" in run.stderr
  assert "Traceback" not in run.stderr


@needs_libtpu
@pytest.mark.slow
def test_the_kernel_compiles_for_tpus(config):
  config.model.encoder = "dinov2_vit_small_14"
  config.data.resize = config.data.crop = 392
  mesh = ahead_of_time.topology_mesh("v5e:2x2", 2)
  works = {
    work: ahead_of_time.compile_work(config, mesh, work)
    for work in ahead_of_time.WORKS
  }
  assert all("softmax_attention" in w.program.text for w in works.values())
  assert not works["predict"].exchanges
  step = works["step"]
  assert set(collectives.by_kind(step.exchanges)) == {"all-reduce"}
  reduced = sum(c.bytes for c in step.exchanges)
  gradient = step.parts["trainable parameters"]
  # The gradient is summed in the compute dtype, bfloat16.
  assert gradient / 2 <= reduced <= gradient
  record = ahead_of_time_table.record(step, 2, mesh)
  assert record["bound_by"] == "HBM" and record["hbm_bytes"] == 2**34


@needs_libtpu
@pytest.mark.slow
def test_fsdp_on_tpus_exchanges_parameters_and_no_images(config):
  config.model.encoder = "dinov2reg_vit_small_14"
  config.data.resize = config.data.crop = 112
  mesh = ahead_of_time.topology_mesh("v5e:2x2", fsdp=4)
  small, large = (
    collectives.by_kind(
      ahead_of_time.compile_work(
        ahead_of_time.with_batch(config, batch), mesh, "step"
      ).exchanges
    )
    for batch in (8, 32)
  )
  # Whatever is computed of images grows with their number.
  assert small == large
  assert set(small) == {"all-gather", "all-reduce"}


@needs_libtpu
def test_chips_that_are_not_there_are_named():
  with pytest.raises(ValueError, match="has 4 chips"):
    ahead_of_time.topology_mesh("v5e:2x2", 8)
  with pytest.raises(ValueError, match="`topology` is 'v9:2x2'"):
    ahead_of_time.topology_mesh("v9:2x2")
  with pytest.raises(ValueError, match="config.mesh.data"):
    ahead_of_time.topology_mesh("v5e:2x2", fsdp=3)
