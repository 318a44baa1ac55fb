import numpy as np

from inp_former_jax.models import similarity


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
