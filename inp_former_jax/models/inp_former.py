"""INP-Former: INP extractor, bottleneck and INP-guided decoder.

Luo et al., "Exploring intrinsic normal prototypes within a single image for
universal anomaly detection", CVPR 2025, arXiv 2503.02424. An INP is an
intrinsic normal prototype: a token that sums up what is normal in one image.
Where the paper's text and its code differ, this follows the code.

Letters in shapes: B batch, N patches, C width, M INPs, h heads.
"""

import dataclasses
import functools
import operator
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from inp_former_jax.models import vit
from inp_former_jax.models.similarity import cosine_similarity

NUM_PROTOTYPES = 6  # INPs per image, as in the paper
LAYER_NORM_EPS = 1e-8  # of the trainable part; the encoder's is 1e-6
_trunc_normal = nnx.initializers.truncated_normal(0.01, lower=-3.0, upper=3.0)


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class INPFormerOutput:
  """Outputs of a forward pass, all float32 except the extractor attention.

  Attributes:
    encoder_groups: The two encoder groups, each (B, N, C): the means of e0..e3
      and of e4..e7.
    decoder_groups: The two decoder groups, each (B, N, C), in the order of the
      encoder groups that they are trained to match.
    inps: The INPs, (B, M, C), or None for a model without INPs.
    inp_distance: Distance of every patch to the nearest INP, (B, N), in
      [0, 2], or None for a model without INPs.
    extractor_attention: Attention of the extractor, (B, h, M, N), with rows
      that sum to 1, or None for a model without INPs.
  """

  encoder_groups: tuple[jax.Array, jax.Array]
  decoder_groups: tuple[jax.Array, jax.Array]
  inps: jax.Array | None
  inp_distance: jax.Array | None
  extractor_attention: jax.Array | None


def mean_features(features: Sequence[jax.Array]) -> jax.Array:
  """Averages features e_i or d_i, each (B, N, C), in at least float32."""
  widened = (_at_least_float32(f) for f in features)
  return functools.reduce(operator.add, widened) / len(features)


def _at_least_float32(x: jax.Array) -> jax.Array:
  """Casts to float32, the least that losses and scores are computed in.

  float64 is kept, because the verification computes in it.
  """
  return x.astype(jnp.promote_types(x.dtype, jnp.float32))


class CrossAttention(nnx.Module):
  """Base of the two cross-attentions, with the projections that they share."""

  def __init__(self, width: int, num_heads: int, *, dtype, rngs: nnx.Rngs):
    linear = functools.partial(
      vit.linear_layer, dtype=dtype, rngs=rngs, kernel_init=_trunc_normal
    )
    self.num_heads = num_heads
    self.q = linear(width, width)
    self.kv = linear(width, 2 * width)
    self.proj = linear(width, width)

  def project(
    self, x: jax.Array, context: jax.Array
  ) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Projects x (B, Q, C) to queries, context (B, K, C) to keys and values.

    They are (B, Q, h, C / h), (B, K, h, C / h) and (B, K, h, C / h).
    """
    heads = self.num_heads
    q = self.q(x).reshape(*x.shape[:2], heads, -1)
    kv = self.kv(context).reshape(*context.shape[:2], 2, heads, -1)
    return q, kv[:, :, 0], kv[:, :, 1]

  def merge(self, weights: jax.Array, v: jax.Array) -> jax.Array:
    """Sums v (B, K, h, C/h) by weights (B, h, Q, K); projects to (B, Q, C)."""
    out = jnp.einsum("bhqk,bkhd->bqhd", weights, v)
    return self.proj(out.reshape(*out.shape[:2], -1))


class ExtractorAttention(CrossAttention):
  """Softmax cross-attention scaled by head_dim^-0.5."""

  def __call__(
    self, x: jax.Array, context: jax.Array
  ) -> tuple[jax.Array, jax.Array]:
    """Attends from prototypes x (B, M, C) to patches (B, N, C).

    Returns the output, (B, M, C), and the attention weights, (B, h, M, N).
    """
    q, k, v = self.project(x, context)
    logits = jnp.einsum("bqhd,bkhd->bhqk", q * q.shape[-1] ** -0.5, k)
    attention = jax.nn.softmax(_at_least_float32(logits)).astype(v.dtype)
    return self.merge(attention, v), attention


class GuidedAttention(CrossAttention):
  """INP-guided attention: ReLU(s_h * cos(q, k)), no softmax (Eq. 6)."""

  def __init__(self, width: int, num_heads: int, *, dtype, rngs: nnx.Rngs):
    super().__init__(width, num_heads, dtype=dtype, rngs=rngs)
    self.learn_scale = nnx.Param(jnp.ones(num_heads))  # s_h

  def __call__(self, x: jax.Array, inps: jax.Array) -> jax.Array:
    """Attends from patches x (B, N, C) to INPs (B, M, C); gives (B, N, C)."""
    q, k, v = self.project(x, inps)
    q, k = _l2_normalise(q), _l2_normalise(k)
    similarity = jnp.einsum("bqhd,bkhd->bhqk", q, k)
    scale = self.learn_scale[...].astype(similarity.dtype)[:, None, None]
    return self.merge(jax.nn.relu(scale * similarity), v)


def _l2_normalise(x: jax.Array) -> jax.Array:
  """Divides by max(|x|, 1e-12) over the last axis; the norm is float32."""
  square = jnp.sum(jnp.square(_at_least_float32(x)), axis=-1, keepdims=True)
  return (x * jax.lax.rsqrt(jnp.maximum(square, 1e-24))).astype(x.dtype)


class _Block(nnx.Module):
  """Base of all trainable blocks, with their two norms and their MLP."""

  def __init__(self, width: int, *, dtype, rngs: nnx.Rngs):
    norm = functools.partial(
      vit.LayerNorm, width, epsilon=LAYER_NORM_EPS, dtype=dtype, rngs=rngs
    )
    self.norm1 = norm()
    self.norm2 = norm()
    self.mlp = vit.Mlp(width, dtype=dtype, rngs=rngs, kernel_init=_trunc_normal)


class ExtractorBlock(_Block):
  """T' = T + Attn(LN1(T), LN1(F)); P = T' + MLP(LN2(T')) (Eq. 1, 2)."""

  def __init__(self, width: int, num_heads: int, *, dtype, rngs: nnx.Rngs):
    super().__init__(width, dtype=dtype, rngs=rngs)
    self.attn = ExtractorAttention(width, num_heads, dtype=dtype, rngs=rngs)

  def __call__(
    self, prototypes: jax.Array, fused: jax.Array
  ) -> tuple[jax.Array, jax.Array]:
    """Turns tokens T (B, M, C) and fused tokens F (B, N, C) into INPs.

    Returns the INPs, (B, M, C), and the attention weights, (B, h, M, N).
    """
    # The original uses the same LN1 for both inputs.
    update, attention = self.attn(self.norm1(prototypes), self.norm1(fused))
    x = prototypes + update
    return x + self.mlp(self.norm2(x)), attention


class GuidedBlock(_Block):
  """y = Attn(LN1(x), LN1(P)); x = y + MLP(LN2(y)) (Eq. 6)."""

  def __init__(self, width: int, num_heads: int, *, dtype, rngs: nnx.Rngs):
    super().__init__(width, dtype=dtype, rngs=rngs)
    self.attn = GuidedAttention(width, num_heads, dtype=dtype, rngs=rngs)

  def __call__(self, x: jax.Array, inps: jax.Array) -> jax.Array:
    """Decodes patches x (B, N, C) from INPs (B, M, C); gives (B, N, C)."""
    # No residual around the attention: it would carry the anomaly through.
    y = self.attn(self.norm1(x), self.norm1(inps))
    return y + self.mlp(self.norm2(y))


class SelfAttentionBlock(_Block):
  """A plain transformer block, for the decoder of the model without INPs."""

  def __init__(self, width: int, num_heads: int, *, dtype, rngs: nnx.Rngs):
    super().__init__(width, dtype=dtype, rngs=rngs)
    self.attn = vit.SelfAttention(
      width, num_heads, dtype=dtype, rngs=rngs, kernel_init=_trunc_normal
    )

  def __call__(self, x: jax.Array) -> jax.Array:
    """Applies the block to patches (B, N, C); gives (B, N, C)."""
    x = x + self.attn(self.norm1(x))
    return x + self.mlp(self.norm2(x))


class INPFormer(nnx.Module):
  """The whole model (Fig. 2 of the paper).

  Attributes:
    encoder: The frozen VisionTransformer.
    prototypes: The learnable tokens T, (1, M, C), or None without INPs.
    extractor: The block that turns T and the image's tokens into INPs, or
      None without INPs.
    bottleneck: The MLP before the decoder, C -> 4C -> C.
    decoder: The blocks of the decoder, as many as target blocks.
    dtype: Compute dtype; parameters are float32.
  """

  def __init__(
    self,
    variant: vit.Variant,
    num_registers: int = 0,
    *,
    num_prototypes: int = NUM_PROTOTYPES,
    use_inps: bool = True,
    dtype: jax.typing.DTypeLike = jnp.float32,
    rngs: nnx.Rngs,
  ):
    """Builds the model with random weights throughout.

    Args:
      variant: Size of the encoder, a row of vit.VARIANTS.
      num_registers: Number of register tokens of the encoder, 0 or 4.
      num_prototypes: Number of INPs M.
      use_inps: Whether the model has INPs. False gives the paper's ablation: a
        decoder of plain self-attention blocks, and no extractor.
      dtype: Compute dtype; parameters are float32.
      rngs: Source of the initial values.
    """
    width, heads = variant.width, variant.num_heads
    options = {"dtype": dtype, "rngs": rngs}
    self.encoder = vit.VisionTransformer(variant, num_registers, **options)
    self.bottleneck = vit.Mlp(width, kernel_init=_trunc_normal, **options)
    if use_inps:
      tokens = jax.random.normal(rngs.params(), (1, num_prototypes, width))
      self.prototypes = nnx.Param(tokens)
      self.extractor = ExtractorBlock(width, heads, **options)
    else:
      self.prototypes = self.extractor = None
    block = GuidedBlock if use_inps else SelfAttentionBlock
    depth = len(variant.target_blocks)
    self.decoder = nnx.List(
      block(width, heads, **options) for _ in range(depth)
    )
    self.dtype = dtype

  def __call__(self, images: vit.AnyArray) -> INPFormerOutput:
    """Runs encoder, extractor, bottleneck and decoder.

    Args:
      images: Normalised images, (B, H, W, 3); the patch size divides H and W.

    Returns:
      The encoder and decoder groups, and the INPs with their distances and
      attention.
    """
    features = self.encoder.target_features(images)
    fused = mean_features(features)
    inps, attention, distance = None, None, None
    if self.extractor is not None:
      inps, attention = self.extract_inps(fused)
      distance = inp_distance(fused, inps)
    decoded = self.decode(fused, inps)
    half = len(features) // 2
    return INPFormerOutput(
      encoder_groups=(
        mean_features(features[:half]),
        mean_features(features[half:]),
      ),
      # The last decoder blocks match the first encoder group.
      decoder_groups=(
        mean_features(decoded[half:]),
        mean_features(decoded[:half]),
      ),
      inps=inps,
      inp_distance=distance,
      extractor_attention=attention,
    )

  def extract_inps(self, fused: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Extracts the INPs of each image.

    Args:
      fused: Fused tokens F, (B, N, C).

    Returns:
      The INPs, (B, M, C) float32, and the attention weights, (B, h, M, N).
    """
    assert self.prototypes is not None  # a model without INPs has none
    assert self.extractor is not None
    tokens = self.prototypes[...].astype(self.dtype)
    tokens = jnp.broadcast_to(tokens, (fused.shape[0], *tokens.shape[1:]))
    inps, attention = self.extractor(tokens, fused.astype(self.dtype))
    return _at_least_float32(inps), attention

  def decode(self, fused: jax.Array, inps: jax.Array | None) -> list[jax.Array]:
    """Runs bottleneck and decoder.

    Args:
      fused: Fused tokens F, (B, N, C).
      inps: INPs P, (B, M, C), or None for a model without INPs.

    Returns:
      The outputs d1..d8 of the decoder blocks, each (B, N, C).
    """
    x = self.bottleneck(fused.astype(self.dtype))
    if inps is not None:
      inps = inps.astype(self.dtype)
    outputs = []
    for block in self.decoder:
      if isinstance(block, SelfAttentionBlock):
        x = block(x)
      else:
        assert inps is not None  # only a model with INPs has these blocks
        x = block(x, inps)
      outputs.append(x)
    return outputs


def inp_distance(fused: jax.Array, inps: jax.Array) -> jax.Array:
  """Computes the distance of every patch to the nearest INP.

  D_i = min_m (1 - cos(F_i, P_m)). Its mean is the coherence loss (Eq. 5), and
  its map is the zero-shot anomaly map.

  Args:
    fused: Fused tokens F, (B, N, C) float32.
    inps: INPs P, (B, M, C) float32.

  Returns:
    The distances D, (B, N), in [0, 2].
  """
  similarity = cosine_similarity(fused[:, :, None], inps[:, None])
  return jnp.min(1.0 - similarity, axis=-1)


def split(model: INPFormer) -> tuple[nnx.GraphDef, nnx.State, nnx.State]:
  """Splits a model into structure, trainable part and frozen encoder.

  Args:
    model: The model to split.

  Returns:
    The graph definition, the trainable state and the frozen state, which
    `nnx.merge` puts together again, in this order.
  """
  graphdef, trainable, frozen = nnx.split(
    model, nnx.Not(nnx.PathContains("encoder")), ...
  )
  return graphdef, trainable, frozen
