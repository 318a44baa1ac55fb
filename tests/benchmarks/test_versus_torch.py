"""The comparison with PyTorch is of the same blocks, and says what it is."""

import sys

import pytest

from inp_former_jax.benchmarks import models, versus_torch
from inp_former_jax.benchmarks.versus_torch import Comparison
from inp_former_jax.configs import demo


def femto():
  config = demo.get_config()
  config.batch_size = 2
  (model,) = models.load(config, ["dinov2reg_vit_femto_14"])
  return model


def test_without_torch_the_error_is_a_line_with_the_remedy(monkeypatch):
  monkeypatch.setitem(sys.modules, "torch", None)
  with pytest.raises(ValueError, match="pip install torch") as error:
    versus_torch.require_torch()
  assert "\n" not in str(error.value)


def test_tokens_are_patches_class_and_registers():
  assert versus_torch.num_tokens(femto(), (56, 42)) == 4 * 3 + 1 + 4


def test_the_comparison_is_described():
  found = Comparison(2, 17, "2.0", 4, ours=(1.0, 2.0, 4.0), theirs=(2.0,) * 3)
  assert found.ratio.median == 1.0
  text = versus_torch.format_comparison(found)
  assert "only the encoder's blocks, on 2 x 17 tokens" in text
  assert "JAX is 1.00 times as fast (0.50 - 2.00)" in text


def test_both_stacks_are_run_and_have_equally_many_parameters():
  torch = pytest.importorskip("torch")
  model = femto()
  calls = versus_torch.calls(model, 2, (56, 56))
  assert set(calls) == {versus_torch.OURS, versus_torch.THEIRS}
  variant = model.settings.spec.variant
  stack = versus_torch._stack(
    torch, variant.width, variant.num_heads, variant.depth
  )
  blocks = model.merged().encoder.blocks
  assert len(stack) == len(blocks)
  import jax
  from flax import nnx

  ours = sum(x.size for x in jax.tree.leaves(nnx.state(blocks)))
  assert sum(p.numel() for p in stack.parameters()) == ours
