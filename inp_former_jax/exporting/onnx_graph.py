"""Writes an ONNX graph, node by node, with names that can be read."""

import collections
import contextlib
from collections.abc import Generator, Mapping
from typing import Any

import numpy as np

from inp_former_jax.exporting.errors import require

# Opset 20 is the first with Gelu, and the runtimes and onnxruntime's quantiser
# know all of it. IR version 9 belongs to it.
OPSET, IR_VERSION = 20, 9

Value = str  # the name of a value of the graph


class Graph:
  """A graph under construction.

  Values are called by their names. Nodes are named after the scopes that they
  are added in and their operator, such as "encoder.blocks.0.attn/MatMul_1".
  """

  def __init__(self):
    self._onnx = require("onnx")
    self._nodes: list[Any] = []
    self._initializers: dict[str, np.ndarray] = {}
    self._inputs: list[Any] = []
    self._outputs: list[Any] = []
    self._scope: list[str] = []
    self._counts: collections.Counter[str] = collections.Counter()

  @contextlib.contextmanager
  def scope(self, name: str) -> Generator[None]:
    """Names the nodes that are added in a `with` statement."""
    self._scope.append(name)
    yield
    self._scope.pop()

  def node(self, op: str, *inputs: Value, **attributes: Any) -> Value:
    """Adds a node.

    Args:
      op: Name of a standard operator.
      *inputs: The values that it takes.
      **attributes: Its attributes.

    Returns:
      Its only output.
    """
    return self.nodes(op, 1, *inputs, **attributes)[0]

  def nodes(
    self, op: str, count: int, *inputs: Value, **attributes: Any
  ) -> list[Value]:
    """Adds a node that has several outputs, like `node`."""
    name = self._unique(op)
    outputs = [name] if count == 1 else [f"{name}.{i}" for i in range(count)]
    self._nodes.append(
      self._onnx.helper.make_node(op, inputs, outputs, name=name, **attributes)
    )
    return outputs

  def constant(self, value: Any, dtype: Any = np.int64) -> Value:
    """Adds a small constant that needs no name of its own."""
    return self.array(self._unique("constant"), np.asarray(value, dtype))

  def array(self, name: str, value: np.ndarray) -> Value:
    """Adds an array by name; the same name twice is the same array."""
    self._initializers.setdefault(name, value)
    return name

  def reshape(self, x: Value, *shape: int) -> Value:
    """Reshapes a value; 0 keeps an axis, as for the batch, -1 is the rest."""
    return self.node("Reshape", x, self.constant(shape))

  def cast(self, x: Value, dtype: Any) -> Value:
    """Converts a value to a dtype of numpy."""
    kind = self._onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    return self.node("Cast", x, to=kind)

  def add_input(self, name: str, dtype: Any, shape: tuple) -> Value:
    """Declares an input of the model; a string names a free axis."""
    self._inputs.append(self._info(name, dtype, shape))
    return name

  def add_output(self, name: str, x: Value, dtype: Any, shape: tuple) -> None:
    """Declares that a value is an output of the model, under this name."""
    node = self._onnx.helper.make_node("Identity", [x], [name], name=name)
    self._nodes.append(node)
    self._outputs.append(self._info(name, dtype, shape))

  def model(self, producer: str, metadata: Mapping[str, str]) -> Any:
    """Finishes the model and checks it.

    Args:
      producer: Name of what has written the model.
      metadata: Texts to put into the file by name.

    Returns:
      The `onnx.ModelProto`.
    """
    helper = self._onnx.helper
    arrays = [
      self._onnx.numpy_helper.from_array(np.ascontiguousarray(value), name)
      for name, value in self._initializers.items()
    ]
    graph = helper.make_graph(
      self._nodes, "inp_former", self._inputs, self._outputs, arrays
    )
    model = helper.make_model(
      graph,
      producer_name=producer,
      ir_version=IR_VERSION,
      opset_imports=[helper.make_opsetid("", OPSET)],
    )
    helper.set_model_props(model, dict(metadata))
    self._onnx.checker.check_model(model, full_check=True)
    return model

  def _unique(self, kind: str) -> str:
    name = f"{'.'.join(self._scope)}/{kind}".removeprefix("/")
    self._counts[name] += 1
    return f"{name}_{self._counts[name]}"

  def _info(self, name: str, dtype: Any, shape: tuple) -> Any:
    kind = self._onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    return self._onnx.helper.make_tensor_value_info(name, kind, shape)
