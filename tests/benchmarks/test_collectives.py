"""What devices exchange is read off compiled programs."""

import json
import os
import subprocess
import sys

import pytest

from inp_former_jax.benchmarks import collectives
from inp_former_jax.benchmarks.collectives import Collective
from tests.conftest import ROOT

PROGRAM = """\
HloModule jit_step, is_scheduled=true, num_partitions=8

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %sum = f32[] add(%a, %b)
}

%wrapped (p: bf16[2,48]) -> bf16[8,48] {
  %p = bf16[2,48]{1,0:T(8,128)(2,1)} parameter(0)
  ROOT %gather = bf16[8,48]{1,0:T(8,128)(2,1)} all-gather(%p), channel_id=7, \
replica_groups=[2,4]<=[8], dimensions={0}, metadata={op_name="jit(f)/encoder"}
}

%round (x: (s32[], f32[16])) -> (s32[], f32[16]) {
  %y = f32[16]{0} all-reduce(%x), replica_groups={{0,1},{2,3}}, to_apply=%add
  %z = f32[4]{0} reduce-scatter(%y), replica_groups=mesh['a'=2,'b'=4], \
device_ids=([4,2]T(1,0)) {'b'}, dimensions={0}, to_apply=%add
}

%more (x: (s32[], f32[16])) -> pred[] {
  ROOT %less = pred[] compare(%x, %x), direction=LT
}

ENTRY %main (q: bf16[2,48]) -> f32[16] {
  %start = ((bf16[2,48]{1,0:T(8,128)(2,1)}), bf16[8,48]{1,0}) \
async-start(%q), calls=%wrapped
  %done = bf16[8,48]{1,0} async-done(%start), calls=%wrapped
  %s = (f32[4]{0:T(128)}, f32[32]{0:T(128)S(1)}, u32[]) \
all-gather-start(%q), replica_groups={}, dimensions={0}
  %d = f32[32]{0} all-gather-done(%s)
  %again = bf16[8,48]{1,0} all-gather(%q), channel_id=7, \
replica_groups=[2,4]<=[8], dimensions={0}, metadata={op_name="jit(f)/encoder"}
  %loop = (s32[], f32[16]) while(%init), condition=%more, body=%round, \
backend_config={"known_trip_count":{"n":"5"}}
  %both = (f32[16]{0}, /*index=1*/f32[]) all-reduce(%d, %d), \
replica_groups=mesh['a'=8] {'a':(2)4}, to_apply=%add
  %alone = f32[16]{0} all-reduce(%d), replica_groups={{0},{1}}, to_apply=%add
  %next = f32[16]{0} collective-permute(%d), source_target_pairs={{0,1},{1,2}}
}
"""
# Prints the exchanges of prediction and step on eight devices as JSON.
ON_EIGHT_DEVICES = """
import dataclasses, json, sys
from inp_former_jax import sharding
from inp_former_jax.benchmarks import ahead_of_time
from inp_former_jax.configs import demo

config = demo.get_config()
config.model.encoder = "dinov2reg_vit_femto_14"
config.data.resize = config.data.crop = 56
config.batch_size, fsdp = int(sys.argv[1]), int(sys.argv[2])
mesh = sharding.make_mesh(-1, fsdp)
works = {
  work: ahead_of_time.compile_work(config, mesh, work)
  for work in ahead_of_time.WORKS
}
found = {
  work: {
    "parts": compiled.parts,
    "exchanges": [dataclasses.asdict(c) for c in compiled.exchanges],
  }
  for work, compiled in works.items()
}
print(json.dumps(found))
"""


def test_collectives_are_found_in_loops_pairs_and_fusions():
  found = collectives.read(PROGRAM)
  assert set(found) == {
    Collective("all-gather", 8 * 48 * 2, 4, 1, "jit(f)/encoder"),
    Collective("all-gather", 32 * 4, 8, 1, ""),
    Collective("all-reduce", 16 * 4, 2, 5, ""),
    Collective("reduce-scatter", 4 * 4 * 4, 4, 5, ""),
    Collective("all-reduce", 17 * 4, 4, 1, ""),
    Collective("collective-permute", 16 * 4, 2, 1, ""),
  }
  assert collectives.by_kind(found) == {
    "all-reduce": (6, 5 * 64 + 68),
    "all-gather": (2, 768 + 128),
    "reduce-scatter": (5, 5 * 64),
    "collective-permute": (1, 64),
  }


@pytest.mark.parametrize(
  "kind, sent",
  [
    ("all-reduce", 2 * 3 / 4 * 800),
    ("all-gather", 3 / 4 * 800),
    ("reduce-scatter", 3 / 4 * 800),
    ("collective-permute", 800),
  ],
)
def test_each_device_keeps_its_own_part(kind, sent):
  assert Collective(kind, 400, 4, 2, "").sent_bytes == sent


def exchanges(batch_size: int, fsdp: int):
  run = subprocess.run(
    [sys.executable, "-c", ON_EIGHT_DEVICES, str(batch_size), str(fsdp)],
    cwd=ROOT,
    env=os.environ | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "8"},
    capture_output=True,
    text=True,
  )
  assert run.returncode == 0, run.stderr
  found = json.loads(run.stdout)
  return {
    work: (
      figures["parts"],
      [Collective(**c) for c in figures["exchanges"]],
    )
    for work, figures in found.items()
  }


@pytest.mark.slow
def test_the_step_reduces_the_gradient_and_prediction_exchanges_nothing():
  found = exchanges(16, 1)
  assert not found["predict"][1]
  parts, of_step = found["step"]
  assert {c.kind for c in of_step} == {"all-reduce"}
  assert all(c.group == 8 and "encoder" not in c.scope for c in of_step)
  gradient = parts["trainable parameters"]
  reduced = sum(c.bytes * c.count for c in of_step)
  # Beside it the means of the losses; and the gradient of a norm that serves
  # patches and INPs is reduced once for each.
  assert gradient <= reduced <= 1.01 * gradient


@pytest.mark.slow
def test_fsdp_exchanges_parameters_and_no_images():
  small, large = exchanges(16, 4), exchanges(32, 4)
  for work, (parts, found) in small.items():
    # Whatever is computed of images grows with their number.
    assert collectives.by_kind(found) == collectives.by_kind(large[work][1])
    whole = 4 * (parts["frozen parameters"] + parts["trainable parameters"])
    gathered = [c for c in found if c.kind == "all-gather"]
    assert gathered and max(c.bytes for c in gathered) < whole / 4
    passes = 1 if work == "predict" else 2  # also on the way back
    assert sum(c.bytes * c.count for c in gathered) <= passes * whole
