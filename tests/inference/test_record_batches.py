import types

import pytest

from inp_former_jax.inference.record_batches import Reading, predict_records


def test_unknown_sizes_are_named_with_a_remedy():
  model = types.SimpleNamespace(preprocessing=None)
  with pytest.raises(ValueError, match=r"`resize`.*trained\.load"):
    next(predict_records(model, [], Reading(batch_size=1)))
