"""Works are timed, traced and tabled, and their programs have named scopes."""

import re

import jax
import pytest

from inp_former_jax import train
from inp_former_jax.benchmarks import models, speed, speed_table, steps, tracing
from inp_former_jax.benchmarks.floor import Rates
from inp_former_jax.configs import demo
from inp_former_jax.models import complexity
from tests.benchmarks.test_growth import speed as make_speed
from tests.conftest import tiny_config

_FEMTO = "dinov2_vit_femto_14"


def scopes_of(text: str) -> set[str]:
  """The scopes in the names of a compiled program's operations."""
  names = re.findall(r'op_name="([^"]*)"', text)
  return {word for name in names for word in re.findall(r"\w+", name)}


@pytest.mark.slow
def test_all_works_are_timed_traced_and_named(config, tmp_path):
  seen = {}
  jax.clear_caches()  # of what other tests have compiled in this process

  def after(works):
    tracing.write(tmp_path, works)
    seen.update({work.name: work for work in works})

  found = speed.measure(
    config,
    models.load(config, [_FEMTO]),
    steps.WORKS,
    num_rounds=2,
    seconds=0.01,
    side=64,
    others={"other": lambda: None},
    after=after,
  )
  assert [one.work for one in found.speeds] == list(steps.WORKS)
  assert len(found.others["other"]) == len(found.rates) == 2
  assert not found.too_large
  counts = complexity.count(
    models.load(config, [_FEMTO])[0].settings.spec.variant, 0, 56, 56
  )
  for one in found.speeds:
    assert len(one.seconds) == len(one.fractions) == 2
    assert all(fraction > 0 for fraction in one.fractions)
    # compiling takes longer than a batch of so small a model
    assert one.compile_seconds > max(one.seconds)
    assert one.host_bytes > 50_000_000
    assert one.temporary_bytes and one.argument_bytes and one.compiler_flops
  assert [one.flops for one in found.speeds] == [
    counts.predict_flops,
    counts.step_flops,
    counts.cached_step_flops,
  ]
  # The compiled programs bear the names of the model's parts.
  scopes = {name: scopes_of(work.program.text) for name, work in seen.items()}
  assert scopes[steps.STEP] >= set(tracing.SCOPES)
  assert scopes[steps.CACHED] >= set(tracing.SCOPES) - {"encoder"}
  assert "encoder" not in scopes[steps.CACHED]
  assert scopes[steps.PREDICT] >= set(tracing.SCOPES) - {"loss", "optimizer"}
  assert "optimizer" not in scopes[steps.PREDICT]
  # The step reads the encoder and the images, the cached one does not.
  moved = {name: work.floor_bytes for name, work in seen.items()}
  frozen = sum(x.nbytes for x in jax.tree.leaves(seen["step"].model.frozen))
  images = 2 * 56 * 56 * 3
  groups = 2 * 2 * 16 * 24 * 4
  assert moved["step"] - moved["cached"] == frozen + images - groups
  # The trace knows every call as a step.
  (trace,) = tmp_path.rglob("*.xplane.pb")
  content = trace.read_bytes()
  for name in steps.WORKS:
    assert name.encode() in content


@pytest.mark.slow
def test_the_model_of_a_run_is_timed_at_its_own_size(tmp_path, dataset_root):
  run = tiny_config(dataset_root)
  run.steps = 1
  train.train_and_evaluate(run, tmp_path)
  config = demo.get_config()  # at 224 pixels; the run had 70
  loaded = models.load(config, [], str(tmp_path))
  found = speed.measure(
    config, loaded, [steps.PREDICT], num_rounds=1, seconds=0.01, side=64
  )
  assert found.speeds[0].crop == (70, 70)
  assert found.speeds[0].encoder == run.model.encoder


@pytest.mark.slow
def test_several_sizes_are_measured_of_one_model(config):
  points = [speed.Point(1, (28, 42)), speed.Point(3, (28, 28))]
  found = speed.measure(
    config,
    models.load(config, [_FEMTO]),
    [steps.PREDICT],
    num_rounds=1,
    seconds=0.01,
    points=points,
    side=64,
  )
  sizes = [(one.batch_size, one.crop) for one in found.speeds]
  assert sizes == [(1, (28, 42)), (3, (28, 28))]
  assert found.speeds[0].flops > found.speeds[1].flops


def test_what_does_not_fit_is_told_and_the_rest_is_measured(
  config, monkeypatch
):
  def build(config, name, model, trainer, batch_size, crop):
    raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory")

  monkeypatch.setattr(steps, "build", build)
  found = speed.measure(
    config,
    models.load(config, [_FEMTO]),
    [steps.PREDICT],
    num_rounds=1,
    seconds=0.0,
    side=64,
  )
  assert found.speeds == ()
  assert found.too_large == (
    f"{_FEMTO} predict: out of memory at batch 2 and 56x56 pixels.",
  )
  assert found.too_large[0] in speed_table.format_table(found)


def test_table_gives_medians_ranges_and_costs_of_an_image():
  one = make_speed(4, 56, 2.0, 3 * 10**9)
  rates = (Rates(5e9, 2e9), Rates(7e9, 2e9), Rates(6e9, 2e9))
  lines = speed_table.format_table(
    speed.Speeds((one,), rates, {}, ())
  ).splitlines()
  assert "6 GFLOP/s by a matrix product (5 - 7)" in lines[0]
  assert lines[2].split() == ["vit", "predict", "4", "56x56"] + [
    *("2.00", "0.02", "-", "2.00"),
    *("0.500", "0.500", "-", "0.500", "1.0", "s"),
  ]
  costs = next(line for line in lines[3:] if line.startswith("vit"))
  assert costs.split() == ["vit", "predict", "4", "56x56", "2"] + [
    *("-", "-", "-", "-", "3.00", "-", "0.0", "-")
  ]
