"""What is measured on held-out views, before a student may be written."""

import math

import pytest

from inp_former_jax.distillation import held_out


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_an_r2_that_is_not_finite_is_refused(value):
  r2 = {"all": {"group0": 0.5, "group1": 0.4}, "parts": {"group0": 0.1}}
  held_out.require_finite(3, r2)
  r2["parts"]["group1"] = value
  with pytest.raises(FloatingPointError, match="R2 after step 3 is not finite"):
    held_out.require_finite(3, r2)
