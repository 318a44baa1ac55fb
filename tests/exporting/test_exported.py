"""An export appears whole, with its sidecar, or not at all."""

import dataclasses
import hashlib
import json

import numpy as np
import pytest

from inp_former_jax.atomic import replacing_folder
from inp_former_jax.exporting import errors, exported, runtimes
from inp_former_jax.exporting.errors import DifferenceError, ExportError
from inp_former_jax.inference.decision import Thresholds
from tests.exporting.conftest import (
  IDENTITY,
  SIZES,
  make_calibration,
  make_model,
)


@pytest.fixture
def export(model, samples, tmp_path):
  """Exports with other arguments than the usual ones."""
  pytest.importorskip("onnxruntime", reason="needs the extra export")
  pytest.importorskip("onnx", reason="needs the extra export")

  def call(out="out", **changed):
    arguments = {
      "format": "onnx",
      "samples": samples,
      "identity": IDENTITY,
      **changed,
    }
    one = arguments.pop("model", model)
    return exported.export_model(one, tmp_path / out, **arguments)

  return call


def test_the_sidecar_says_all(export, model, samples, tmp_path):
  calibration = make_calibration(model, samples.images)
  content, comparisons = export(calibration=calibration)
  folder = tmp_path / "out"
  assert sorted(p.name for p in tmp_path.iterdir()) == ["out"]
  assert json.loads((folder / "model.json").read_text()) == content
  assert content["preprocessing"]["resize"] == [97, 80]
  assert content["preprocessing"]["crop"] == [6, 5, 90, 75]
  assert content["inputs"]["images"]["shape"] == ["batch", 70, 84, 3]
  assert content["outputs"]["mask"]["shape"] == ["batch", 64, 64]
  thresholds = calibration.thresholds_of()
  assert content["thresholds"] == dataclasses.asdict(thresholds)
  assert content["colour_scale"] == {"vmin": 0.1, "vmax": 0.9}
  assert content["calibration"]["evidence"]["normal"] == 7
  assert content["model"]["encoder_sha256"] == "random"
  data = (folder / "model.onnx").read_bytes()
  assert content["files"]["model.onnx"] == {
    "bytes": len(data),
    "sha256": hashlib.sha256(data).hexdigest(),
  }
  assert content["versions"]["onnxruntime"]
  runtimes_compared = [c.runtime.split()[0] for c in comparisons]
  assert runtimes_compared[0] == "onnxruntime"
  assert comparisons[0].images == 7
  assert comparisons[0].score <= 1e-4 and comparisons[0].decisions == 0
  assert "0 of 7 decisions" in str(comparisons[0])


def test_a_category_has_thresholds_of_its_own(export, model, samples):
  own = Thresholds(0.25, 0.5, 0.125)
  calibration = make_calibration(model, samples.images, bolt=own)
  content, _ = export(calibration=calibration, category="bolt")
  assert content["category"] == "bolt"
  assert content["thresholds"] == dataclasses.asdict(own)
  with pytest.raises(ExportError, match="of their own are: bolt"):
    export(calibration=calibration, category="nut")
  with pytest.raises(ExportError, match="not calibrated"):
    export(category="bolt")


def test_an_earlier_export_is_replaced_and_nothing_else(export, tmp_path):
  pytest.importorskip("flatbuffers", reason="needs the extra export")
  export()
  export(format="stablehlo")
  names = sorted(path.name for path in (tmp_path / "out").iterdir())
  assert names == ["model.json", "model.stablehlo", "parameters.npz"]
  (tmp_path / "out" / "notes.txt").write_text("mine")
  with pytest.raises(ExportError, match="other files .notes.txt."):
    export()
  (tmp_path / "file").write_text("mine")
  with pytest.raises(ExportError, match="is a file"):
    export("file")
  (tmp_path / "empty").mkdir()
  export("empty")
  assert (tmp_path / "empty" / "model.onnx").is_file()


@pytest.mark.parametrize("what", ["score", "map", "nan", "missing"])
def test_an_export_that_answers_differently_is_refused(
  export, tmp_path, monkeypatch, what
):
  load = runtimes.load

  def spoilt(*arguments):
    ((name, run), *_) = load(*arguments).items()

    def answer(images):
      found = dict(run(images))
      if what == "missing":
        del found["map"]
      elif what == "nan":
        found["map"] = found["map"] * np.float32("nan")
      else:
        found[what] = found[what] + np.float32(2e-4)
      return found

    return {name: answer}

  monkeypatch.setattr(runtimes, "load", spoilt)
  with pytest.raises(DifferenceError, match="Nothing was written"):
    export()
  assert not list(tmp_path.iterdir())


def test_int8_reports_its_cost_and_needs_images(export, samples, tmp_path):
  content, comparisons = export(
    precision="int8", calibration_images=samples.images
  )
  assert content["precision"] == "int8"
  assert comparisons[0].score > 0
  assert comparisons[0].rank_correlation > 0.5
  files = sorted(path.name for path in (tmp_path / "out").iterdir())
  assert files == ["model.json", "model.onnx"]
  with pytest.raises(ExportError, match="`precision`=int8 .* give `images`"):
    export("other", precision="int8")
  assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
  ("changed", "message"),
  [
    ({"format": "onnx "}, "expected one of stablehlo, onnx"),
    ({"precision": "float8"}, "and one of float32, float16, int8"),
    (
      {"format": "stablehlo", "precision": "int8"},
      "`precision`=int8 needs `format`=onnx",
    ),
  ],
)
def test_what_cannot_be_exported_is_said(export, changed, message):
  with pytest.raises(ExportError, match=message):
    export(**changed)


@pytest.mark.parametrize(
  ("settings", "message"),
  [
    ({"sizes": None}, "Give `resize` and `crop`"),
    ({"dtype": "bfloat16"}, "`dtype`=float32"),
    ({"use_inps": False, "zero_shot": True}, "this model has none"),
  ],
)
def test_models_that_cannot_be_exported(export, settings, message):
  with pytest.raises(ExportError, match=message):
    export(model=make_model(**settings))


def test_a_missing_package_names_the_extra():
  with pytest.raises(ExportError, match=r"\[export\]"):
    errors.require("a_package_that_nobody_has")


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
  out = tmp_path / "deep" / "out"
  with replacing_folder(out) as part:
    (part / "a").write_text("1")
    assert not out.exists()
  with pytest.raises(RuntimeError), replacing_folder(out) as part:
    (part / "b").write_text("2")
    raise RuntimeError
  assert [path.name for path in out.iterdir()] == ["a"]
  with replacing_folder(out) as part:
    (part / "c").write_text("3")
  assert [path.name for path in out.iterdir()] == ["c"]
  assert [path.name for path in out.parent.iterdir()] == ["out"]


def test_sizes_are_those_of_the_images(samples):
  assert samples.images.shape == (7, *SIZES.crop, 3)
