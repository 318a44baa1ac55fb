"""Restores the newest checkpoint on this topology, compares it, saves the next.

To be run by `test_topology.py` in processes of their own.
"""

import json
import sys

import jax
import numpy as np

from inp_former_jax import sharding
from inp_former_jax.training import model_state, optimizer
from inp_former_jax.training.checkpoints import checkpoint, manifest


def abstract_state(mesh):
  """Shapes and shardings of a small model's parameters and its optimizer."""
  settings = model_state.ModelSettings("dinov2reg_vit_nano_14")
  _, trainable, _ = model_state._abstract(settings)
  moments = optimizer.make_optimizer(lambda step: 0.0).init
  state = (trainable, jax.eval_shape(moments, trainable))
  return sharding.abstract(state, sharding.parameter_shardings(mesh, state))


def values(step: int, abstract) -> list[np.ndarray]:
  """The same values for every topology."""
  rng = np.random.default_rng(step)
  return [
    rng.integers(0, 2**24, leaf.shape).astype(leaf.dtype) / 7
    if leaf.dtype == np.float32
    else np.full(leaf.shape, step, leaf.dtype)
    for leaf in jax.tree.leaves(abstract)
  ]


def placed(step: int, abstract):
  leaves, tree = jax.tree.flatten(abstract)
  arrays = [
    jax.make_array_from_callback(
      leaf.shape, leaf.sharding, lambda index, value=value: value[index]
    )
    for leaf, value in zip(leaves, values(step, abstract), strict=True)
  ]
  return jax.tree.unflatten(tree, arrays)


def require_equal(restored, step: int, abstract) -> int:
  """Compares every shard of this process; returns how many were cut."""
  split = 0
  leaves = zip(
    jax.tree.leaves(restored),
    jax.tree.leaves(abstract),
    values(step, abstract),
    strict=True,
  )
  for array, shape, value in leaves:
    assert array.sharding == shape.sharding, (array.sharding, shape.sharding)
    assert array.dtype == value.dtype
    split += not array.sharding.is_fully_replicated
    for shard in array.addressable_shards:
      np.testing.assert_array_equal(np.asarray(shard.data), value[shard.index])
  return split


def main(folder: str, data: str, fsdp: str, step: str, *peers: str) -> None:
  if peers:
    address, number = peers
    jax.distributed.initialize(address, 2, int(number))
  mesh = sharding.make_mesh(int(data), int(fsdp))
  abstract, before, split = abstract_state(mesh), int(step) - 1, 0
  with checkpoint.Checkpointer(folder, {}, cleans_up=True) as checkpointer:
    assert checkpointer.newest_sound_step() == (before or None)
    if before:
      *state, position = checkpointer.restore(*abstract)
      split = require_equal(tuple(state), before, abstract)
      assert position == {"next_batch": before}
    trainable, moments = placed(int(step), abstract)
    checkpointer.save(int(step), trainable, moments, {"next_batch": int(step)})
    checkpointer.wait()
    saved = checkpointer.directory / step
    assert manifest.has_manifest(saved) and not manifest.find_damage(saved)
  report = {
    "devices": jax.device_count(),
    "processes": jax.process_count(),
    "split": split,
  }
  print(json.dumps(report))


if __name__ == "__main__":
  main(*sys.argv[1:])
