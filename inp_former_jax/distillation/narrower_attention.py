"""Chooses the directions that a narrower attention keeps.

They are directions of the queries, keys and values of the teacher.
"""

import jax
import jax.numpy as jnp
import numpy as np

from inp_former_jax.models import vit
from inp_former_jax.models.attention import softmax_attention


def attention_moments(first_patch: int, block: vit.EncoderBlock, x: jax.Array):
  """Computes the moments of a block's attention for `narrowing_matrix`.

  Args:
    first_patch: Index of the first patch; the registers precede it.
    block: A block of the teacher.
    x: Input of the block, (B, T, C).

  Returns:
    The number of tokens; the sums over tokens of q q^T, k k^T, v v^T and
    a a^T, where a is the output of a head, each (h, d, d); and the sums of k,
    v and a, each (h, d).
  """
  attention = block.attn
  qkv = attention.qkv(block.norm1(x))
  given = softmax_attention(qkv, attention.num_heads)
  qkv = qkv.reshape(*x.shape[:2], 3, attention.num_heads, -1)
  q, k, v = (qkv[:, :, i] for i in range(3))
  given = given.reshape(q.shape)
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
  """Computes the matrix that narrows the teacher's attention to a student's.

  Let L L^T be a head's second moments. The best approximation of q k^T in few
  dimensions is then the truncated SVD of Lq^T Lk, and that of v with its part
  W of the output projection is the truncated SVD of Lv^T W.

  Args:
    block: A block of the teacher.
    moments: The results of `attention_moments`, summed over all images.
    num_heads: Number of heads of the student; the heads that contribute most
      are kept.
    width: Width C of the student.

  Returns:
    The matrix, (3 C', 3 C) float32, by which the teacher's qkv is multiplied
    to get the student's.
  """
  count, *moments = moments
  qq, kk, vv, aa, k, v, a = (m / count for m in moments)
  # The means need not be kept: a constant added to all keys changes no
  # softmax, and one added to all values is a bias of the output.
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
  """Returns L with L L^T = moment, after raising the smallest eigenvalues.

  Rounding may have made some of them negative.
  """
  values, vectors = np.linalg.eigh(moment)
  return vectors * np.sqrt(np.maximum(values, 1e-4 * values.mean()))
