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
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from inp_former_jax.models import layers, vit
from inp_former_jax.models.attention import AUTO
from inp_former_jax.models.blocks import (
  ExtractorBlock,
  GuidedBlock,
  SelfAttentionBlock,
  recomputed,
  trunc_normal,
)
from inp_former_jax.models.precision import at_least_float32
from inp_former_jax.models.similarity import unit_vectors

NUM_PROTOTYPES = 6  # INPs per image, as in the paper


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
  widened = (at_least_float32(f) for f in features)
  return functools.reduce(operator.add, widened) / len(features)


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
    remat: Whether what happens within bottleneck and decoder blocks is computed
      again for the gradient rather than kept.
  """

  def __init__(
    self,
    variant: vit.Variant,
    num_registers: int = 0,
    *,
    num_prototypes: int = NUM_PROTOTYPES,
    use_inps: bool = True,
    attention: str = AUTO,
    dtype: jax.typing.DTypeLike = jnp.float32,
    remat: bool = False,
    rngs: nnx.Rngs,
  ):
    """Builds the model with random weights throughout.

    Args:
      variant: Size of the encoder, a row of vit.VARIANTS.
      num_registers: Number of register tokens of the encoder, 0 or 4.
      num_prototypes: Number of INPs M.
      use_inps: Whether the model has INPs. False gives the paper's ablation: a
        decoder of plain self-attention blocks, and no extractor.
      attention: How self-attention is computed, see `softmax_attention`.
      dtype: Compute dtype; parameters are float32.
      remat: Whether bottleneck and decoder blocks compute again for the
        gradient what happens within them. It takes less memory and more time.
      rngs: Source of the initial values.
    """
    width, heads = variant.width, variant.num_heads
    options = {"dtype": dtype, "rngs": rngs}
    self.encoder = vit.VisionTransformer(
      variant, num_registers, attention=attention, **options
    )
    self.bottleneck = layers.Mlp(width, kernel_init=trunc_normal, **options)
    if use_inps:
      tokens = jax.random.normal(rngs.params(), (1, num_prototypes, width))
      self.prototypes = nnx.Param(tokens)
      self.extractor = ExtractorBlock(width, heads, **options)
    else:
      self.prototypes = self.extractor = None
    block = (
      GuidedBlock
      if use_inps
      else functools.partial(SelfAttentionBlock, attention=attention)
    )
    depth = len(variant.target_blocks)
    self.decoder = nnx.List(
      block(width, heads, **options) for _ in range(depth)
    )
    self.dtype = dtype
    self.remat = remat

  def __call__(self, images: vit.AnyArray) -> INPFormerOutput:
    """Runs encoder, extractor, bottleneck and decoder.

    Args:
      images: Normalised images, (B, H, W, 3); the patch size divides H and W.

    Returns:
      The encoder and decoder groups, and the INPs with their distances and
      attention.
    """
    return self.reconstruct(self.encode(images))

  def encode(self, images: vit.AnyArray) -> tuple[jax.Array, jax.Array]:
    """Computes the encoder groups, which no trainable parameter influences.

    Args:
      images: Normalised images, (B, H, W, 3); the patch size divides H and W.

    Returns:
      The means of e0..e3 and of e4..e7, each (B, N, C) float32.
    """
    with jax.named_scope("encoder"):
      features = self.encoder.target_features(images)
      half = len(features) // 2
      return mean_features(features[:half]), mean_features(features[half:])

  def reconstruct(
    self, encoder_groups: tuple[jax.Array, jax.Array]
  ) -> INPFormerOutput:
    """Runs extractor, bottleneck and decoder.

    Args:
      encoder_groups: The encoder groups that `encode` computes, each (B, N, C)
        float32.

    Returns:
      What the whole model gives, with the encoder groups unchanged.
    """
    fused = mean_features(encoder_groups)
    inps, attention, distance = None, None, None
    if self.extractor is not None:
      with jax.named_scope("extractor"):
        inps, attention = self.extract_inps(fused)
        distance = inp_distance(fused, inps)
    decoded = self.decode(fused, inps)
    half = len(decoded) // 2
    return INPFormerOutput(
      encoder_groups=encoder_groups,
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
    return at_least_float32(inps), attention

  def decode(self, fused: jax.Array, inps: jax.Array | None) -> list[jax.Array]:
    """Runs bottleneck and decoder.

    Args:
      fused: Fused tokens F, (B, N, C).
      inps: INPs P, (B, M, C), or None for a model without INPs.

    Returns:
      The outputs d1..d8 of the decoder blocks, each (B, N, C).
    """
    with jax.named_scope("bottleneck"):
      bottleneck = self._for_gradient(self.bottleneck)
      x = bottleneck(fused.astype(self.dtype))
    if inps is not None:
      inps = inps.astype(self.dtype)
    outputs = []
    with jax.named_scope("decoder"):
      for block in self.decoder:
        run = self._for_gradient(block)
        if isinstance(block, SelfAttentionBlock):
          x = run(x)
        else:
          assert inps is not None  # only a model with INPs has these blocks
          x = run(x, inps)
        outputs.append(x)
    return outputs

  def _for_gradient(self, module: nnx.Module) -> Callable[..., jax.Array]:
    """Returns a module in the form that `remat` asks for."""
    return recomputed(module) if self.remat else module


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
  similarity = jnp.einsum(
    "bnc,bmc->bnm",
    unit_vectors(fused),
    unit_vectors(inps),
    precision=jax.lax.Precision.HIGHEST,
  )
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
