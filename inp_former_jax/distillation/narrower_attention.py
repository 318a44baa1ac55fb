"""Which directions of queries, keys and values a narrower attention keeps."""

import jax
import jax.numpy as jnp
import numpy as np

from inp_former_jax.models import vit


def attention_moments(first_patch: int, block: vit.EncoderBlock, x: jax.Array):
  """What `narrowing_matrix` needs to know of a block's attention.

  Args:
    first_patch: Index of the first patch; registers stand before it.
    block: Of the teacher.
    x: (B, T, C), its input.

  Returns:
    Number of tokens; sums over tokens of q q^T, k k^T, v v^T and a a^T
    (a = what a head gives), each (h, d, d); sums of k, v and a, (h, d).
  """
  attention = block.attn
  qkv = attention.qkv(block.norm1(x))
  qkv = qkv.reshape(*x.shape[:2], 3, attention.num_heads, -1)
  q, k, v = (qkv[:, :, i] for i in range(3))
  given = jax.nn.dot_product_attention(q, k, v)
  q, k, v, given = (
    jnp.concatenate([a[:, :1], a[:, first_patch:]], axis=1)
    for a in (q, k, v, given)
  )
  products = [jnp.einsum("bthi,bthj->hij", a, a) for a in (q, k, v, given)]
  sums = [a.sum(axis=(0, 1)) for a in (k, v, given)]
  return jnp.asarray(q.shape[0] * q.shape[1]), *products, *sums


def narrowing_matrix(
  block: vit.EncoderBlock, moments, num_heads: int, width: int
) -> np.ndarray:
  """From the teacher's queries, keys and values to those of a student.

  Per head, with L L^T the second moments: the best
  approximation of q k^T in few dimensions is the truncated SVD of Lq^T Lk; of
  v with its part of the output projection W, that of Lv^T W.

  Args:
    block: Of the teacher.
    moments: As `attention_moments` gives them, summed.
    num_heads: Of the student: the heads that add most are kept.
    width: C of the student.

  Returns:
    (3 C', 3 C): the student's qkv is to be the teacher's times this.
  """
  count, *moments = moments
  qq, kk, vv, aa, k, v, a = (m / count for m in moments)
  # A constant added to all keys changes no softmax, and one added to all
  # values is a bias of the output.
  kk, vv, aa = (
    m - np.einsum("hi,hj->hij", mean, mean)
    for m, mean in ((kk, k), (vv, v), (aa, a))
  )
  old_heads, old = k.shape
  new = width // num_heads
  rank = min(old, new)
  output = np.asarray(block.attn.proj.kernel[...] * block.ls1[...], np.float64)
  output = output.reshape(old_heads, old, -1)
  added = np.einsum("hio,hij,hjo->h", output, aa, output)
  kept = np.sort(np.argsort(added)[::-1][:num_heads])
  scale = (new / old) ** 0.25  # softmax divides by sqrt(new), not sqrt(old)
  matrix = np.zeros((3, old_heads, old, 3, num_heads, new))
  for place, head in enumerate(kept):
    factor_q, factor_k, factor_v = (_factor(m[head]) for m in (qq, kk, vv))
    left, strength, right = np.linalg.svd(factor_q.T @ factor_k)
    root = np.sqrt(strength[:rank]) * scale
    values = np.linalg.svd(factor_v.T @ output[head])[0][:, :rank]
    for part, kept_part in enumerate(
      (
        np.linalg.solve(factor_q.T, left[:, :rank]) * root,
        np.linalg.solve(factor_k.T, right[:rank].T) * root,
        np.linalg.solve(factor_v.T, values),
      )
    ):
      matrix[part, head, :, part, place, :rank] = kept_part
  matrix = matrix.reshape(3 * old_heads * old, 3 * width)
  return matrix.astype(np.float32)


def _factor(moment: np.ndarray) -> np.ndarray:
  """L with L L^T = moment, whose smallest eigenvalues are raised.

  Rounding may have left some of them below 0.
  """
  values, vectors = np.linalg.eigh(moment)
  return vectors * np.sqrt(np.maximum(values, 1e-4 * values.mean()))
