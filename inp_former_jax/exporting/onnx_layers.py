"""Encoder, extractor, bottleneck and decoder in ONNX's standard operators.

The counterpart of `models.vit` and `models.blocks`, layer by layer, with
the same letters in shapes: B batch, T tokens, N patches, C width, M INPs, h
heads. Values that both dtypes share are float32, as there.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from inp_former_jax.exporting.onnx_graph import Graph, Value
from inp_former_jax.models import blocks, vit


@dataclasses.dataclass(frozen=True)
class Layers:
  """Writes layers into a graph.

  Attributes:
    graph: The graph to write into.
    parameters: The model's parameters by name, float32.
    dtype: The dtype in which the layers compute, float32 or float16.
  """

  graph: Graph
  parameters: Mapping[str, np.ndarray]
  dtype: Any = np.float32

  def weight(self, name: str) -> Value:
    """Returns a parameter in the dtype of the layers."""
    return self.graph.array(name, self.parameters[name].astype(self.dtype))

  def linear(self, name: str, x: Value) -> Value:
    """Applies a linear layer to x (..., C)."""
    with self.graph.scope(name):
      product = self.graph.node("MatMul", x, self.weight(f"{name}.kernel"))
      return self.graph.node("Add", product, self.weight(f"{name}.bias"))

  def norm(self, name: str, x: Value, epsilon: float) -> Value:
    """Applies a layer norm to x (..., C)."""
    scale, bias = (self.weight(f"{name}.{part}") for part in ("scale", "bias"))
    with self.graph.scope(name):
      return self.graph.node(
        "LayerNormalization", x, scale, bias, axis=-1, epsilon=epsilon
      )

  def mlp(self, name: str, x: Value) -> Value:
    """Applies the two-layer perceptron to x (..., C)."""
    hidden = self.linear(f"{name}.fc1", x)
    with self.graph.scope(name):
      hidden = self.graph.node("Gelu", hidden, approximate="none")
    return self.linear(f"{name}.fc2", hidden)

  def heads(self, x: Value, tokens: int, heads: int) -> Value:
    """Cuts x (B, T, C) into heads (B, h, T, C / h)."""
    cut = self.graph.reshape(x, 0, tokens, heads, -1)
    return self.graph.node("Transpose", cut, perm=[0, 2, 1, 3])

  def joined(self, x: Value, tokens: int, width: int) -> Value:
    """Joins the heads of x (B, h, T, C / h) to (B, T, C)."""
    swapped = self.graph.node("Transpose", x, perm=[0, 2, 1, 3])
    return self.graph.reshape(swapped, 0, tokens, width)

  def softmax_attention(self, q: Value, k: Value, v: Value, size: int) -> Value:
    """Attends from q to k and v, cut into heads of `size` channels."""
    scale = self.graph.constant(size**-0.5, self.dtype)
    scaled = self.graph.node("Mul", self._transposed(k), scale)
    logits = self.graph.node("MatMul", q, scaled)
    weights = self.graph.node("Softmax", logits, axis=-1)
    return self.graph.node("MatMul", weights, v)

  def self_attention(self, name: str, x: Value, sizes: "Sizes") -> Value:
    """Attends among tokens x (B, T, C)."""
    tokens, heads = sizes.tokens, sizes.heads
    qkv = self.linear(f"{name}.qkv", x)
    with self.graph.scope(name):
      parts = self.graph.nodes("Split", 3, qkv, axis=-1, num_outputs=3)
      q, k, v = (self.heads(part, tokens, heads) for part in parts)
      out = self.softmax_attention(q, k, v, sizes.width // heads)
      out = self.joined(out, tokens, sizes.width)
    return self.linear(f"{name}.proj", out)

  def extractor_attention(self, name: str, x: Value, sizes: "Sizes") -> Value:
    """Attends from the prototypes to patches (B, N, C); gives (B, M, C)."""
    k, v = self._keys_and_values(name, x, sizes.tokens, sizes)
    with self.graph.scope(name):
      queries = extractor_queries(self.parameters, sizes.heads)
      q = self.graph.array(f"{name}.queries", queries.astype(self.dtype))
      out = self.softmax_attention(q, k, v, sizes.width // sizes.heads)
      out = self.joined(out, sizes.inps, sizes.width)
    return self.linear(f"{name}.proj", out)

  def guided_attention(
    self, name: str, x: Value, inps: Value, sizes: "Sizes"
  ) -> Value:
    """Attends from patches x (B, N, C) to INPs (B, M, C), without softmax."""
    q = self.linear(f"{name}.q", x)
    k, v = self._keys_and_values(name, inps, sizes.inps, sizes)
    scale = self.parameters[f"{name}.learn_scale"].astype(self.dtype)
    with self.graph.scope(name):
      q = self.heads(q, sizes.tokens, sizes.heads)
      q, k = self._l2_normalised(q), self._l2_normalised(k)
      similarity = self.graph.node("MatMul", q, self._transposed(k))
      scale = self.graph.array(f"{name}.learn_scale", scale[:, None, None])
      weights = self.graph.node(
        "Relu", self.graph.node("Mul", similarity, scale)
      )
      out = self.graph.node("MatMul", weights, v)
      out = self.joined(out, sizes.tokens, sizes.width)
    return self.linear(f"{name}.proj", out)

  def _keys_and_values(
    self, name: str, context: Value, tokens: int, sizes: "Sizes"
  ) -> list[Value]:
    """Projects context (B, K, C) to keys and values, (B, h, K, C / h)."""
    kv = self.linear(f"{name}.kv", context)
    with self.graph.scope(name):
      parts = self.graph.nodes("Split", 2, kv, axis=-1, num_outputs=2)
      return [self.heads(part, tokens, sizes.heads) for part in parts]

  def _transposed(self, x: Value) -> Value:
    return self.graph.node("Transpose", x, perm=[0, 1, 3, 2])

  def _l2_normalised(self, x: Value) -> Value:
    wide = self.widened(x)
    return self.narrowed(unit(self.graph, wide, 1e-24))

  def widened(self, x: Value) -> Value:
    """Casts to float32, unless it is that already."""
    is_wide = self.dtype == np.float32
    return x if is_wide else self.graph.cast(x, np.float32)

  def narrowed(self, x: Value) -> Value:
    """Casts from float32 to the dtype of the layers, if that is another."""
    is_wide = self.dtype == np.float32
    return x if is_wide else self.graph.cast(x, self.dtype)

  def mean(self, name: str, features: Sequence[Value]) -> Value:
    """Averages features in float32."""
    with self.graph.scope(name):
      return self.graph.node("Mean", *(self.widened(f) for f in features))


@dataclasses.dataclass(frozen=True)
class Sizes:
  """Sizes that the layers share.

  Attributes:
    tokens: Number of tokens that a layer works on.
    width: Number of channels C.
    heads: Number of heads h.
    inps: Number of INPs M.
  """

  tokens: int
  width: int
  heads: int
  inps: int


def unit(graph: Graph, x: Value, smallest: float) -> Value:
  """Divides x by its norm over the last axis.

  Args:
    graph: The graph to write into.
    x: Vectors (..., C) float32.
    smallest: Least value of the squared norm, against zero vectors.
  """
  axes = graph.constant([-1])
  square = graph.node("ReduceSumSquare", x, axes, keepdims=1)
  guarded = graph.node("Max", square, graph.constant(smallest, np.float32))
  return graph.node("Div", x, graph.node("Sqrt", guarded))


def embed(
  layers: Layers,
  images: Value,
  variant: vit.Variant,
  grid: tuple[int, int],
  registers: int,
) -> Value:
  """Turns normalised images (B, H, W, 3) into tokens (B, 1 + R + N, C)."""
  graph, size, (rows, columns) = layers.graph, variant.patch_size, grid
  with graph.scope("encoder"):
    patches = graph.reshape(images, 0, rows, size, columns, size, 3)
    patches = graph.node("Transpose", patches, perm=[0, 1, 3, 2, 4, 5])
    patches = graph.reshape(patches, 0, rows * columns, size * size * 3)
  x = layers.linear("encoder.patch_embed", layers.narrowed(patches))
  prefix, position = _position(layers.parameters, grid, registers)
  with graph.scope("encoder"):
    position = graph.array("encoder.position", position.astype(layers.dtype))
    x = graph.node("Add", x, position)
    batch = graph.node("Shape", images, start=0, end=1)
    rest = graph.constant(prefix.shape[1:])
    shape = graph.node("Concat", batch, rest, axis=0)
    prefix = graph.array("encoder.prefix", prefix.astype(layers.dtype))
    prefix = graph.node("Expand", prefix, shape)
    return graph.node("Concat", prefix, x, axis=1)


def _position(
  parameters: Mapping[str, np.ndarray], grid: tuple[int, int], registers: int
) -> tuple[np.ndarray, np.ndarray]:
  """Returns class and register tokens, and the positions of the patches."""
  table = parameters["encoder.pos_embed"]
  prefix = [parameters["encoder.cls_token"] + table[:, :1]]
  if registers:
    prefix.append(parameters["encoder.register_tokens"])
  position = vit.resize_position_table(jnp.asarray(table[:, 1:]), *grid)
  return np.concatenate(prefix, axis=1), np.asarray(position)


def extractor_queries(
  parameters: Mapping[str, np.ndarray], heads: int
) -> np.ndarray:
  """Returns the queries of the prototypes, which depend on no image.

  Args:
    parameters: The model's parameters by name.
    heads: Number of heads h.

  Returns:
    The queries, (1, h, M, C / h) float64.
  """
  x = parameters["prototypes"].astype(np.float64)
  x = x - x.mean(axis=-1, keepdims=True)
  variance = np.square(x).mean(axis=-1, keepdims=True)
  x = x / np.sqrt(variance + blocks.LAYER_NORM_EPS)
  norm, q = "extractor.norm1", "extractor.attn.q"
  x = x * parameters[f"{norm}.scale"] + parameters[f"{norm}.bias"]
  x = x @ parameters[f"{q}.kernel"] + parameters[f"{q}.bias"]
  return x.reshape(1, x.shape[1], heads, -1).transpose(0, 2, 1, 3)


def encoder_block(layers: Layers, name: str, x: Value, sizes: Sizes) -> Value:
  """Applies a block of the encoder, with LayerScale."""
  graph, epsilon = layers.graph, vit.LAYER_NORM_EPS
  update = layers.norm(f"{name}.norm1", x, epsilon)
  update = layers.self_attention(f"{name}.attn", update, sizes)
  with graph.scope(name):
    update = graph.node("Mul", update, layers.weight(f"{name}.ls1"))
    x = graph.node("Add", x, update)
  update = layers.norm(f"{name}.norm2", x, epsilon)
  update = layers.mlp(f"{name}.mlp", update)
  with graph.scope(name):
    update = graph.node("Mul", update, layers.weight(f"{name}.ls2"))
    return graph.node("Add", x, update)


def extractor(layers: Layers, fused: Value, sizes: Sizes) -> Value:
  """Turns fused tokens F (B, N, C) into INPs (B, M, C)."""
  graph, name, epsilon = layers.graph, "extractor", blocks.LAYER_NORM_EPS
  tokens = layers.weight("prototypes")
  normed = layers.norm(f"{name}.norm1", fused, epsilon)
  update = layers.extractor_attention(f"{name}.attn", normed, sizes)
  with graph.scope(name):
    x = graph.node("Add", tokens, update)
  update = layers.mlp(f"{name}.mlp", layers.norm(f"{name}.norm2", x, epsilon))
  with graph.scope(name):
    return graph.node("Add", x, update)


def decoder_block(
  layers: Layers, name: str, x: Value, inps: Value | None, sizes: Sizes
) -> Value:
  """Applies a block of the decoder, guided by INPs where the model has them."""
  graph, epsilon = layers.graph, blocks.LAYER_NORM_EPS
  normed = layers.norm(f"{name}.norm1", x, epsilon)
  if inps is None:
    update = layers.self_attention(f"{name}.attn", normed, sizes)
    with graph.scope(name):
      y = graph.node("Add", x, update)
  else:
    guide = layers.norm(f"{name}.norm1", inps, epsilon)
    y = layers.guided_attention(f"{name}.attn", normed, guide, sizes)
  update = layers.mlp(f"{name}.mlp", layers.norm(f"{name}.norm2", y, epsilon))
  with graph.scope(name):
    return graph.node("Add", y, update)
