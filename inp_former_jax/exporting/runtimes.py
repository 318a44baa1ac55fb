"""Runs exported models by the runtimes that users have."""

import importlib.metadata
import importlib.util
import pathlib
import warnings
from collections.abc import Callable

import numpy as np

from inp_former_jax.exporting import onnx_model, stablehlo
from inp_former_jax.exporting.answers import IMAGES, Answers
from inp_former_jax.exporting.errors import require
from inp_former_jax.inference.decision import Thresholds

STABLEHLO, ONNX = "stablehlo", "onnx"
FORMATS = (STABLEHLO, ONNX)
_ERRORS_ONLY = 3  # onnxruntime's log level
Runner = Callable[[np.ndarray], Answers]


def load(
  format: str, folder: pathlib.Path, thresholds: Thresholds | None
) -> dict[str, Runner]:
  """Loads an exported model by every runtime that is installed.

  Args:
    format: STABLEHLO or ONNX.
    folder: The folder of the export.
    thresholds: The thresholds that it was exported with, or None.

  Returns:
    For each runtime, by name and version, a function from uint8 images
    (B, H, W, 3) to answers in numpy.

  Raises:
    ExportError: If onnxruntime is not installed, for ONNX.
  """
  if format == STABLEHLO:
    return {_version("jax"): stablehlo.load(folder, thresholds)}
  path = folder / onnx_model.MODEL
  runners = {_version("onnxruntime"): load_onnxruntime(path)}
  if importlib.util.find_spec("openvino"):
    runners[_version("openvino")] = load_openvino(path)
  return runners


def load_onnxruntime(path: pathlib.Path) -> Runner:
  """Loads an ONNX model by onnxruntime, on the CPU.

  Args:
    path: The model's file.

  Raises:
    ExportError: If onnxruntime is not installed.
  """
  onnxruntime = require("onnxruntime")
  options = onnxruntime.SessionOptions()
  options.log_severity_level = _ERRORS_ONLY
  session = onnxruntime.InferenceSession(
    path, options, providers=["CPUExecutionProvider"]
  )
  names = [output.name for output in session.get_outputs()]

  def run(images: np.ndarray) -> Answers:
    return dict(zip(names, session.run(names, {IMAGES: images}), strict=True))

  return run


def load_openvino(path: pathlib.Path) -> Runner:
  """Loads an ONNX model by OpenVINO, on the CPU.

  Args:
    path: The model's file.

  Raises:
    ExportError: If OpenVINO is not installed.
  """
  with warnings.catch_warnings():
    # Its import starts a process, at which JAX warns.
    warnings.simplefilter("ignore", RuntimeWarning)
    openvino = require("openvino")
  # Otherwise OpenVINO computes in bfloat16 where the CPU can.
  settings = {"INFERENCE_PRECISION_HINT": "f32"}
  model = openvino.Core().compile_model(path, "CPU", settings)

  def run(images: np.ndarray) -> Answers:
    found = model(images)
    return {output.any_name: found[output] for output in model.outputs}

  return run


def _version(package: str) -> str:
  return f"{package} {importlib.metadata.version(package)}"
