"""The scripts of docs/export.md run as they stand, without this package."""

import ast
import json
import os
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest

from inp_former_jax.data.transforms import load_image
from inp_former_jax.exporting import exported
from tests.conftest import ROOT
from tests.documentation_blocks import blocks_of
from tests.exporting.conftest import IDENTITY, SIZES, make_calibration

SCRIPTS = {
  runtime: block
  for block in blocks_of(ROOT / "docs" / "export.md")
  if block.language == "python"
  for runtime in ("jax", "onnxruntime", "openvino")
  if f"import {runtime}" in block.text or f", {runtime}" in block.text
}
FORMATS = {"jax": "stablehlo", "onnxruntime": "onnx", "openvino": "onnx"}
NEEDS = {"jax": "flatbuffers"}
# An import of the package would fail.
_WITHOUT_PACKAGE = (
  "import runpy, sys; sys.modules['inp_former_jax'] = None; "
  "runpy.run_path('script.py')"
)


@pytest.fixture(scope="module")
def folders(model, samples, tmp_path_factory):
  """A folder with the export for each format, as a user would have it."""
  pytest.importorskip("onnxruntime", reason="needs the extra export")
  pytest.importorskip("flatbuffers", reason="needs the extra export")
  calibration = make_calibration(model, samples.images)
  found = {}
  for format in set(FORMATS.values()):
    found[format] = tmp_path_factory.mktemp(format)
    exported.export_model(
      model,
      found[format] / "exported",
      format=format,
      samples=samples,
      identity=IDENTITY,
      calibration=calibration,
    )
  return found, calibration.thresholds_of()


def test_there_is_a_script_of_a_dozen_lines_for_each_runtime():
  assert SCRIPTS.keys() == FORMATS.keys()
  for block in SCRIPTS.values():
    assert len(ast.parse(block.text).body) <= 13  # longer ones are wrapped
    assert "inp_former" not in block.text
    assert "test_export_page" in block.mark


@pytest.mark.parametrize("runtime", FORMATS)
def test_script_gives_the_models_answer(
  runtime, folders, model, image_files, tmp_path
):
  pytest.importorskip(runtime, reason=f"needs `pip install {runtime}`")
  exports, thresholds = folders
  shutil.copytree(exports[FORMATS[runtime]], tmp_path, dirs_exist_ok=True)
  (tmp_path / "script.py").write_text(SCRIPTS[runtime].text)
  eight_bit = [file for file in image_files if "I16" not in file.name]
  for file in eight_bit[:3]:
    shutil.copy(file, tmp_path / "part.png")
    score, decision, peak = run_script(tmp_path)
    expected = model.predict(load_image(file, SIZES)[None])
    image_score = float(expected.image_score[0])
    tolerance = exported.TOLERANCES[FORMATS[runtime]]
    assert abs(float(score) - image_score) <= tolerance.score
    assert decision == str(bool(image_score > thresholds.image))
    assert abs(float(peak) - np.max(expected.anomaly_map)) <= tolerance.map


def run_script(folder: pathlib.Path) -> list[str]:
  done = subprocess.run(
    [sys.executable, "-c", _WITHOUT_PACKAGE],
    cwd=folder,
    env=os.environ | {"PYTHONPATH": ""},
    capture_output=True,
    text=True,
    timeout=300,
  )
  assert done.returncode == 0, done.stderr
  return done.stdout.split()


def test_the_page_names_every_field_of_the_sidecar(folders):
  exports, _ = folders
  text = (ROOT / "docs" / "export.md").read_text()
  sidecar = json.loads(
    (exports["onnx"] / "exported" / "model.json").read_text()
  )
  for field in set(sidecar) - {"sidecar"}:
    assert f"`{field}`" in text, field
