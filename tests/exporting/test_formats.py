"""An exported model answers as the model does, at any batch size."""

import numpy as np
import pytest

from inp_former_jax.exporting import (
  answers,
  onnx_graph,
  onnx_model,
  quantisation,
  runtimes,
  stablehlo,
)
from inp_former_jax.inference.decision import Thresholds
from tests.exporting.conftest import SIZES, make_model, thresholds_within

EXTRA = 'pip install -e ".[export]"'
FLOATS = (answers.SCORE, answers.MAP, answers.NORMALISED)
MODELS = {
  "registers": {},
  "no registers": {"encoder": "dinov2_vit_femto_14", "num_prototypes": 4},
  "zero-shot": {"zero_shot": True},
  "without INPs": {"use_inps": False},
}


@pytest.fixture(autouse=True)
def _needs_the_extra():
  for module in ("flatbuffers", "onnx", "onnxruntime"):
    pytest.importorskip(module, reason=f"needs the extra export: {EXTRA}")


def expected_answers(model, images, thresholds) -> dict[str, np.ndarray]:
  found = answers.answers(model.predict(images), thresholds)
  return {name: np.asarray(value) for name, value in found.items()}


def check_equal(found, expected, score: float, maps: float = 1e-4) -> None:
  assert found.keys() == expected.keys()
  scale = {answers.SCORE: score, answers.MAP: maps, answers.NORMALISED: 1e-3}
  for name, value in expected.items():
    assert found[name].dtype == value.dtype
    if name in FLOATS:
      np.testing.assert_allclose(
        found[name], value, rtol=0, atol=scale[name], err_msg=name
      )
    else:
      np.testing.assert_array_equal(found[name], value, err_msg=name)


def check_batches(run, images, expected, score: float) -> None:
  assert len(images) == 7
  for count in (1, 3, 7):
    part = {name: value[:count] for name, value in expected.items()}
    check_equal(run(images[:count]), part, score)


@pytest.mark.parametrize("kind", MODELS)
def test_onnx_equals_the_model(kind, samples, tmp_path):
  model = make_model(**MODELS[kind])
  thresholds = thresholds_within(model, samples.images)
  path = tmp_path / onnx_model.MODEL
  onnx_model.write(model, SIZES.crop, thresholds, path)
  run = runtimes.load_onnxruntime(path)
  expected = expected_answers(model, samples.images, thresholds)
  check_batches(run, samples.images, expected, score=1e-4)
  # Both decisions are there, and the scores are no constant.
  assert 0 < expected["decision"].sum() < 7
  assert 0 < expected["mask"].mean() < 1
  assert np.ptp(expected["score"]) > 1e-3


@pytest.mark.parametrize("kind", MODELS)
def test_stablehlo_equals_the_model(kind, samples, tmp_path):
  model = make_model(**MODELS[kind])
  thresholds = thresholds_within(model, samples.images)
  stablehlo.write(model, SIZES.crop, thresholds, tmp_path)
  run = stablehlo.load(tmp_path, thresholds)
  expected = expected_answers(model, samples.images, thresholds)
  check_batches(run, samples.images, expected, score=1e-5)
  assert 0 < expected["decision"].sum() < 7


def test_openvino_equals_the_model(model, samples, tmp_path):
  pytest.importorskip("openvino", reason="needs `pip install openvino`")
  thresholds = thresholds_within(model, samples.images)
  path = tmp_path / onnx_model.MODEL
  onnx_model.write(model, SIZES.crop, thresholds, path)
  run = runtimes.load_openvino(path)
  expected = expected_answers(model, samples.images, thresholds)
  check_batches(run, samples.images, expected, score=1e-4)


def test_without_thresholds_there_are_map_and_score_alone(
  model, samples, tmp_path
):
  stablehlo.write(model, SIZES.crop, None, tmp_path)
  onnx_model.write(model, SIZES.crop, None, tmp_path / onnx_model.MODEL)
  expected = expected_answers(model, samples.images, None)
  assert expected.keys() == {"score", "map"}
  for format in runtimes.FORMATS:
    for run in runtimes.load(format, tmp_path, None).values():
      check_equal(run(samples.images), expected, score=1e-4)


def test_stablehlo_takes_other_thresholds_without_another_export(
  model, samples, tmp_path
):
  stablehlo.write(model, SIZES.crop, Thresholds(9.0, 9.0, 8.0), tmp_path)
  thresholds = thresholds_within(model, samples.images)
  run = stablehlo.load(tmp_path, thresholds)
  expected = expected_answers(model, samples.images, thresholds)
  check_equal(run(samples.images), expected, score=1e-5)


def test_stablehlo_is_for_all_platforms_and_any_batch(model, tmp_path):
  from jax import export

  stablehlo.write(model, SIZES.crop, None, tmp_path)
  blob = (tmp_path / stablehlo.MODEL).read_bytes()
  exported = export.deserialize(bytearray(blob))
  assert exported.platforms == ("cpu", "cuda", "tpu")
  assert exported.nr_devices == 1
  assert str(exported.in_avals[-1]) == "uint8[batch,70,84,3]"


def test_onnx_has_standard_operators_and_the_layers_names(model, tmp_path):
  import onnx

  path = tmp_path / onnx_model.MODEL
  onnx_model.write(model, SIZES.crop, None, path)
  proto = onnx.load_model(path)
  (opset,) = proto.opset_import
  assert (opset.domain, opset.version) == ("", onnx_graph.OPSET)
  operators = {node.op_type for node in proto.graph.node}
  assert {"LayerNormalization", "Gelu", "TopK", "Softmax"} <= operators
  names = {array.name for array in proto.graph.initializer}
  assert "encoder.blocks.3.attn.qkv.kernel" in names
  assert "decoder.0.attn.learn_scale" in names
  batch = proto.graph.input[0].type.tensor_type.shape.dim[0]
  assert batch.dim_param == "batch"


def test_zero_shot_leaves_out_the_decoder(tmp_path):
  import onnx

  path = tmp_path / onnx_model.MODEL
  onnx_model.write(make_model(zero_shot=True), SIZES.crop, None, path)
  names = {array.name for array in onnx.load_model(path).graph.initializer}
  assert not [name for name in names if name.startswith("decoder.")]


def test_float16_halves_the_file_and_scores_in_float32(
  model, samples, tmp_path
):
  paths = tmp_path / "float32.onnx", tmp_path / "float16.onnx"
  for path, dtype in zip(paths, (np.float32, np.float16), strict=True):
    onnx_model.write(model, SIZES.crop, None, path, dtype)
  # Of so small a model, the graph itself is a large part.
  assert paths[1].stat().st_size < 0.75 * paths[0].stat().st_size
  found = runtimes.load_onnxruntime(paths[1])(samples.images)
  expected = expected_answers(model, samples.images, None)
  check_equal(found, expected, score=0.01, maps=0.05)
  assert np.abs(found["score"] - expected["score"]).max() > 0


def test_int8_quantises_linear_layers_alone(model, samples, tmp_path, caplog):
  import onnx

  source, target = tmp_path / "float32.onnx", tmp_path / "int8.onnx"
  onnx_model.write(model, SIZES.crop, None, source)
  quantisation.quantise(source, target, samples.images)
  assert not caplog.records
  graph = onnx.load_model(target).graph
  small = [a for a in graph.initializer if a.data_type == onnx.TensorProto.INT8]
  matrices = [array for array in small if len(array.dims) == 2]
  # Patches; 4 of each encoder and extractor block less the extractor's
  # constant queries; the bottleneck; 5 of each decoder block.
  assert len(matrices) == 1 + 4 * 4 + 4 + 2 + 4 * 5
  found = runtimes.load_onnxruntime(target)(samples.images)
  expected = expected_answers(model, samples.images, None)
  check_equal(found, expected, score=0.1, maps=0.5)
  assert np.corrcoef(found["score"], expected["score"])[0, 1] > 0.8
