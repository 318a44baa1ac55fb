"""Writes a whole model as ONNX: from uint8 images to answers.

An own builder instead of a converter from JAX: the graph keeps the layers'
names and uses the operators that runtimes and quantisers recognise.
"""

import pathlib
from typing import Any

import numpy as np

from inp_former_jax.data import transforms
from inp_former_jax.exporting import answers, onnx_layers
from inp_former_jax.exporting.errors import require
from inp_former_jax.exporting.onnx_graph import Graph, Value
from inp_former_jax.exporting.onnx_layers import Layers, Sizes
from inp_former_jax.inference import scoring
from inp_former_jax.inference.decision import Thresholds
from inp_former_jax.inference.trained import TrainedModel

MODEL = "model.onnx"
SCORING = "scoring"  # the scope of everything after the decoder


def write(
  model: TrainedModel,
  crop: tuple[int, int],
  thresholds: Thresholds | None,
  path: pathlib.Path,
  dtype: Any = np.float32,
) -> None:
  """Writes a model.

  Args:
    model: The model.
    crop: Height and width of its images in pixels.
    thresholds: The thresholds, which become constants; None leaves out the
      outputs that need them.
    path: The file to write.
    dtype: Dtype in which encoder, extractor and decoder compute; scores are
      float32 always.

  Raises:
    ExportError: If onnx is not installed.
  """
  graph = Graph()
  parameters = answers.parameters(model)
  layers = Layers(graph, _used(model, parameters), dtype)
  images = graph.add_input(answers.IMAGES, np.uint8, ("batch", *crop, 3))
  spec = model.settings.spec
  grid = (crop[0] // spec.patch_size, crop[1] // spec.patch_size)
  distance = _distance(model, layers, _normalise(graph, images), grid)
  found = _answers(graph, model, distance, grid, crop, thresholds)
  specs = answers.output_specs(model, thresholds is not None)
  for name, (kind, shape) in specs.items():
    graph.add_output(name, found[name], kind, ("batch", *shape))
  proto = graph.model(
    "inp_former_jax",
    {"encoder": model.settings.encoder, "step": str(model.step)},
  )
  require("onnx").save_model(proto, path)


def _used(model: TrainedModel, parameters):
  """Leaves out what zero-shot scores do not depend on."""
  if not model.zero_shot:
    return parameters
  unused = ("decoder.", "bottleneck.")
  return {n: v for n, v in parameters.items() if not n.startswith(unused)}


def _normalise(graph: Graph, images: Value) -> Value:
  with graph.scope("normalise"):
    x = graph.cast(images, np.float32)
    x = graph.node("Div", x, graph.constant(255, np.float32))
    mean, std = transforms.IMAGENET_MEAN, transforms.IMAGENET_STD
    x = graph.node("Sub", x, graph.constant(mean, np.float32))
    return graph.node("Div", x, graph.constant(std, np.float32))


def _distance(
  model: TrainedModel, layers: Layers, images: Value, grid: tuple[int, int]
) -> Value:
  """Writes everything up to the distance of every patch, (B, N)."""
  spec, settings = model.settings.spec, model.settings
  variant, patches = spec.variant, grid[0] * grid[1]
  first_patch = 1 + spec.num_registers

  def sizes(tokens: int) -> Sizes:
    return Sizes(
      tokens, variant.width, variant.num_heads, settings.num_prototypes
    )

  x = onnx_layers.embed(layers, images, variant, grid, spec.num_registers)
  outputs = []
  for i in range(variant.target_blocks[-1] + 1):
    name = f"encoder.blocks.{i}"
    x = onnx_layers.encoder_block(layers, name, x, sizes(first_patch + patches))
    outputs.append(x)
  features = [outputs[i] for i in variant.target_blocks]
  fused = _patch_mean(layers, features, first_patch)
  inps = None
  if settings.use_inps:
    narrow = layers.narrowed(fused)
    inps = onnx_layers.extractor(layers, narrow, sizes(patches))
  if model.zero_shot:
    assert inps is not None  # checked before the export
    return _inp_distance(layers.graph, fused, layers.widened(inps))
  x = layers.mlp("bottleneck", layers.narrowed(fused))
  decoded = []
  for i in range(len(features)):
    name = f"decoder.{i}"
    x = onnx_layers.decoder_block(layers, name, x, inps, sizes(patches))
    decoded.append(x)
  half = len(features) // 2
  pairs = (  # the last decoder blocks match the first encoder group
    (features[:half], decoded[half:]),
    (features[half:], decoded[:half]),
  )
  groups = [
    (_patch_mean(layers, e, first_patch), layers.mean(SCORING, d))
    for e, d in pairs
  ]
  return _group_distance(layers.graph, groups)


def _patch_mean(layers: Layers, features: list[Value], first: int) -> Value:
  """Averages features and drops the tokens before the first patch."""
  graph, mean = layers.graph, layers.mean(SCORING, features)
  bounds = (first, np.iinfo(np.int64).max, 1)
  return graph.node("Slice", mean, *(graph.constant([b]) for b in bounds))


def _group_distance(graph: Graph, groups: list[tuple[Value, Value]]) -> Value:
  with graph.scope(SCORING):
    distances = []
    for pair in groups:
      g, h = (onnx_layers.unit(graph, x, 1e-16) for x in pair)
      product = graph.node("Mul", g, h)
      axes = graph.constant([-1])
      cosine = graph.node("ReduceSum", product, axes, keepdims=0)
      distances.append(graph.node("Sub", graph.constant(1, np.float32), cosine))
    return graph.node("Mean", *distances)


def _inp_distance(graph: Graph, fused: Value, inps: Value) -> Value:
  with graph.scope(SCORING):
    f, p = (onnx_layers.unit(graph, x, 1e-16) for x in (fused, inps))
    transposed = graph.node("Transpose", p, perm=[0, 2, 1])
    cosine = graph.node("MatMul", f, transposed)
    nearest = graph.node("ReduceMax", cosine, graph.constant([-1]), keepdims=0)
    return graph.node("Sub", graph.constant(1, np.float32), nearest)


def _answers(
  graph: Graph,
  model: TrainedModel,
  distance: Value,
  grid: tuple[int, int],
  crop: tuple[int, int],
  thresholds: Thresholds | None,
) -> dict[str, Value]:
  """Writes maps, scores and what follows from the thresholds."""
  size = model.map_size
  rows = scoring.scoring_matrix(grid[0], crop[0], size)
  columns = scoring.scoring_matrix(grid[1], crop[1], size).T
  with graph.scope(SCORING):
    maps = graph.reshape(distance, 0, *grid)
    maps = graph.node("MatMul", graph.array("scoring.rows", rows), maps)
    maps = graph.node("MatMul", maps, graph.array("scoring.columns", columns))
    count = max(1, int(model.top_fraction * size * size))
    flat = graph.reshape(maps, 0, size * size)
    count = graph.constant([count])
    top, _ = graph.nodes("TopK", 2, flat, count, axis=1, sorted=0)
    axes = graph.constant([1])
    score = graph.node("ReduceMean", top, axes, keepdims=0)
    found = {answers.SCORE: score, answers.MAP: maps}
    if thresholds is not None:
      found |= _decide(graph, score, maps, thresholds)
  return found


def _decide(
  graph: Graph, score: Value, maps: Value, thresholds: Thresholds
) -> dict[str, Value]:
  image, pixel, distance, half, one = (
    graph.constant(value, np.float32)
    for value in (
      thresholds.image,
      thresholds.pixel,
      thresholds.image - thresholds.typical,
      0.5,
      1,
    )
  )
  # As in `Thresholds.normalised`.
  relative = graph.node("Div", graph.node("Sub", score, image), distance)
  bounded = graph.node(
    "Div", relative, graph.node("Add", graph.node("Abs", relative), one)
  )
  return {
    answers.NORMALISED: graph.node(
      "Add", graph.node("Mul", bounded, half), half
    ),
    answers.DECISION: graph.node("Greater", score, image),
    answers.MASK: graph.node("Greater", maps, pixel),
  }
