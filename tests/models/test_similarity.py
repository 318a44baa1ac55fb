import numpy as np

from inp_former_jax.models import inp_former, similarity


def test_cosine_similarity_matches_float64_and_guards_zero():
  rng = np.random.default_rng(0)
  a, b = rng.standard_normal((2, 3, 4, 24)).astype(np.float32)
  a[0, 0] = 0
  x, y = np.asarray(a, np.float64), np.asarray(b, np.float64)
  lengths = np.linalg.norm(x, axis=-1) * np.linalg.norm(y, axis=-1)
  expected = (x * y).sum(-1) / np.maximum(lengths, 1e-8)
  assert expected[0, 0] == 0
  found = similarity.cosine_similarity(a, b)
  np.testing.assert_allclose(found, expected, atol=1e-6)


def test_inp_distance_is_that_to_the_nearest_inp():
  fused, inps = (
    np.random.default_rng(seed).normal(size=(2, count, 24)).astype("f4")
    for seed, count in ((1, 5), (2, 4))
  )
  f, p = (np.asarray(a, np.float64) for a in (fused, inps))
  f /= np.linalg.norm(f, axis=-1, keepdims=True)
  p /= np.linalg.norm(p, axis=-1, keepdims=True)
  expected = (1 - f @ p.swapaxes(1, 2)).min(axis=-1)
  distance = inp_former.inp_distance(fused, inps)
  np.testing.assert_allclose(distance, expected, atol=1e-6)
  own = inp_former.inp_distance(fused, np.concatenate([inps, 2 * fused], 1))
  np.testing.assert_allclose(own, 0, atol=1e-6)
