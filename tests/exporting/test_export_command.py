"""The command: what it prints, what it refuses, and its exit codes."""

import json
import shutil

import numpy as np
import pytest

from inp_former_jax import export
from inp_former_jax.data.transforms import load_image
from inp_former_jax.exporting import runtimes
from inp_former_jax.inference import calibration, trained
from tests.conftest import GOLDENS
from tests.exporting.conftest import make_calibration
from weights_conversion import official_checkpoints


@pytest.fixture(autouse=True)
def _needs_the_extra():
  for module in ("flatbuffers", "onnx", "onnxruntime"):
    pytest.importorskip(module, reason="needs the extra export")


@pytest.fixture(scope="module")
def calibrated(workdir, image_files, tmp_path_factory):
  """A copy of the run with thresholds."""
  folder = tmp_path_factory.mktemp("calibrated") / "workdir"
  shutil.copytree(workdir, folder)
  model = trained.load(folder)
  assert model.preprocessing is not None
  images = [load_image(file, model.preprocessing) for file in image_files]
  found = make_calibration(model, np.stack(images))
  calibration.write_calibration(folder, found)
  return folder, found.thresholds_of()


def run(capfd, *arguments) -> tuple[int, str, str]:
  code = export.main([str(argument) for argument in arguments])
  out, err = capfd.readouterr()
  return code, out, err


def sidecar_of(folder) -> dict:
  return json.loads((folder / "model.json").read_text())


@pytest.mark.parametrize("format", runtimes.FORMATS)
def test_a_run_that_is_not_calibrated(workdir, tmp_path, capfd, format):
  code, out, err = run(capfd, workdir, tmp_path / "out", f"--format={format}")
  assert code == 0, err
  assert "not calibrated" in out and "calibrate" in out
  content = sidecar_of(tmp_path / "out")
  assert content["thresholds"] is None
  assert content["outputs"].keys() == {"score", "map"}
  assert content["model"]["training_images"]["count"] == 18
  # Compared on the run's own test images, whose labels are known.
  assert content["comparisons"][0]["images"] == 18
  assert content["comparisons"][0]["image_auroc"] is not None


def test_a_calibrated_run_decides(calibrated, image_files, tmp_path, capfd):
  workdir, thresholds = calibrated
  images = image_files[0].parent
  code, out, err = run(
    capfd,
    workdir,
    tmp_path / "out",
    "--format=onnx",
    "--images",
    images,
    "--max_images=5",
  )
  assert code == 0, err
  assert "0 of 5 decisions" in out and "not calibrated" not in out
  content = sidecar_of(tmp_path / "out")
  assert content["thresholds"]["image"] == thresholds.image
  assert content["comparisons"][0]["images"] == 5
  assert content["comparisons"][0]["image_auroc"] is None


def test_zero_shot_does_not_use_thresholds_of_other_scores(
  calibrated, tmp_path, capfd
):
  out_folder = tmp_path / "out"
  code, out, err = run(
    capfd, calibrated[0], out_folder, "--format=onnx", "--zero_shot"
  )
  assert code == 0, err
  assert "not calibrated" in out
  assert sidecar_of(out_folder)["model"]["zero_shot"] is True


def test_int8_adapts_to_the_runs_images(workdir, tmp_path, capfd):
  code, out, err = run(
    capfd, workdir, tmp_path / "out", "--format=onnx", "--precision=int8"
  )
  assert code == 0, err
  assert "image AUROC" in out
  assert sidecar_of(tmp_path / "out")["precision"] == "int8"


def test_a_difference_exits_with_1(workdir, tmp_path, capfd, monkeypatch):
  load = runtimes.load

  def spoilt(*arguments):
    ((name, run), *_) = load(*arguments).items()
    return {name: lambda x: run(x) | {"score": run(x)["score"] + 1}}

  monkeypatch.setattr(runtimes, "load", spoilt)
  code, _, err = run(capfd, workdir, tmp_path / "out", "--format=onnx")
  assert code == 1
  assert err.startswith("error: The exported model differs")
  assert not list(tmp_path.iterdir())


def test_a_converted_checkpoint_needs_sizes_and_images(
  image_files, tmp_path, capfd
):
  workdir, out = tmp_path / "converted", tmp_path / "out"
  official_checkpoints.to_flax(GOLDENS / "tiny_noreg_params.npz", workdir)
  flags = [workdir, out, "--format=onnx"]
  assert_refused(run(capfd, *flags), "Give --resize and --crop")
  flags += ["--resize=80", "--crop=70"]
  assert_refused(run(capfd, *flags), "cannot be found. Give --images")
  code, _, err = run(capfd, *flags, "--images", image_files[0].parent)
  assert code == 0, err
  assert sidecar_of(out)["preprocessing"]["resize"] == [80, 80]


def test_bad_input_is_refused_in_a_line(workdir, tmp_path, capfd):
  onnx = "--format=onnx"
  cases = {
    "checkpoint": [tmp_path / "missing", tmp_path / "out", onnx],
    "other files": [workdir, workdir, onnx],
    "needs --format=onnx": [
      workdir,
      tmp_path / "out",
      "--format=stablehlo",
      "--precision=int8",
    ],
    "does not exist": [
      workdir,
      tmp_path / "out",
      onnx,
      "--images",
      tmp_path / "missing",
    ],
    "--category is 'bolt'": [
      workdir,
      tmp_path / "out",
      onnx,
      "--category=bolt",
    ],
  }
  for message, arguments in cases.items():
    assert_refused(run(capfd, *arguments), message)
  assert not list(tmp_path.iterdir())


def assert_refused(done: tuple[int, str, str], message: str) -> None:
  code, _, err = done
  assert code == 2
  (line,) = [text for text in err.splitlines() if text.startswith("error")]
  assert message in line
  assert "Traceback" not in err
