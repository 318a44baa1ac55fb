"""A weight that is split over devices is whole where it is used."""

import jax.numpy as jnp

from inp_former_jax import sharding
from inp_former_jax.models import placement
from tests.conftest import assert_agrees_on_eight_devices

_EIGHT_DEVICES = """
import re
import jax, jax.numpy as jnp, numpy as np
from inp_former_jax import sharding
from inp_former_jax.models import placement

mesh = sharding.make_mesh(data=2, fsdp=4)
rng = np.random.default_rng(0)
x = rng.normal(size=(8, 32)).astype("f")
w = rng.normal(size=(32, 64)).astype("f")

def loss(w, x):
  return jnp.sin(x @ placement.gathered(w)).sum()

both = jax.value_and_grad(loss)
whole = both(w, x)
split = sharding.parameter_shardings(mesh, w)
assert "fsdp" in split.spec, split
compiled = jax.jit(placement.on_mesh(mesh)(both)).lower(
  jax.device_put(w, split), jax.device_put(x, sharding.batch_sharding(mesh))
).compile()
found = compiled(
  jax.device_put(w, split), jax.device_put(x, sharding.batch_sharding(mesh))
)
assert re.search(r"f32\\[32,64\\]\\S* all-gather", compiled.as_text())
assert found[1].sharding.is_equivalent_to(split, 2), found[1].sharding
for a, b in zip(found, whole, strict=True):
  np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
print("agreed")
"""


def test_weights_are_gathered_and_their_gradients_split_again():
  assert_agrees_on_eight_devices(_EIGHT_DEVICES)


def test_nothing_is_gathered_on_one_device_or_outside_of_a_mesh():
  weight = jnp.zeros((32, 64))
  assert placement.gathered(weight) is weight
  with placement.on_mesh(sharding.single_device_mesh()):
    assert placement.gathered(weight) is weight
