"""Quantises an ONNX model to 8-bit integers, by onnxruntime."""

import logging
import pathlib

import numpy as np

from inp_former_jax.exporting.answers import IMAGES
from inp_former_jax.exporting.errors import require

_BATCH = 4  # images that are calibrated on at a time


def quantise(
  source: pathlib.Path, target: pathlib.Path, images: np.ndarray
) -> None:
  """Quantises the linear layers of a model statically.

  Weights get a scale per output channel, activations one scale each, from
  their range over the images. Attention, norms and scoring stay float32.

  Args:
    source: A float32 model that `onnx_model.write` has written.
    target: The file to write.
    images: The images to calibrate on, (B, H, W, 3) uint8.

  Raises:
    ExportError: If onnx or onnxruntime is not installed.
  """
  quantization = require("onnxruntime.quantization")
  batches = [images[i : i + _BATCH] for i in range(0, len(images), _BATCH)]

  class Reader(quantization.CalibrationDataReader):
    """Hands the images to onnxruntime, batch by batch."""

    def __init__(self):
      self._batches = iter(batches)

    def get_next(self) -> dict[str, np.ndarray] | None:
      """Returns the next inputs; None at the end."""
      batch = next(self._batches, None)
      return None if batch is None else {IMAGES: batch}

  # onnxruntime advises by the root logger to preprocess, which a graph of
  # ours does not need.
  level = logging.root.level
  logging.root.setLevel(logging.ERROR)
  try:
    quantization.quantize_static(
      source,
      target,
      Reader(),
      quant_format=quantization.QuantFormat.QDQ,
      per_channel=True,
      # With unsigned activations, CPUs without VNNI saturate.
      activation_type=quantization.QuantType.QInt8,
      weight_type=quantization.QuantType.QInt8,
      nodes_to_quantize=_linear_layers(source),
      extra_options={"MatMulConstBOnly": True},
    )
  finally:
    logging.root.setLevel(level)


def _linear_layers(path: pathlib.Path) -> list[str]:
  """Returns the names of the nodes that multiply by weights."""
  graph = require("onnx").load_model(path, load_external_data=False).graph
  weights = {array.name for array in graph.initializer}
  weights = {name for name in weights if name.endswith(".kernel")}
  return [node.name for node in graph.node if weights & set(node.input)]
