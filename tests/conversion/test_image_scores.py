"""Scores of a folder of images, by `weights_conversion.verify`."""

import numpy as np
import pytest

from inp_former_jax import train
from tests.conftest import GOLDENS, tiny_config
from weights_conversion import official_checkpoints, verify
from weights_conversion.verification import image_scores

MODEL = GOLDENS / "tiny_reg4_params.npz"
SIZES = ["--resize=80", "--crop=70"]
ASKS = (
  "does not record the size it was trained at: add --resize=448 --crop=392 "
  "(the paper's), or those of its training."
)


@pytest.fixture(scope="module")
def images(dataset_root):
  """The folder of test images of one category."""
  return dataset_root / "washer" / "test"


@pytest.fixture(scope="module")
def run(dataset_root, tmp_path_factory):
  """The workdir of a run at 70 pixels, and its result."""
  config = tiny_config(dataset_root)
  config.data.categories = ("washer",)
  config.steps = 1
  workdir = tmp_path_factory.mktemp("run")
  return workdir, train.train_and_evaluate(config, workdir)


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
  """The workdir of a converted checkpoint, which records no sizes."""
  workdir = tmp_path_factory.mktemp("converted") / "run"
  official_checkpoints.to_flax(MODEL, workdir)
  return workdir


def scores(capsys, *command) -> list[float]:
  assert verify.main(list(map(str, command))) == 0
  lines = capsys.readouterr().out.splitlines()
  return [float(line.split()[-1]) for line in lines]


def error(capsys, *command) -> str:
  """The one line that a refused command prints."""
  assert verify.main(list(map(str, command))) == 1
  output = capsys.readouterr()
  assert not output.out and output.err.count("\n") == 1
  return output.err


@pytest.mark.parametrize("sizes", [[], SIZES])
def test_a_workdir_scores_at_its_own_size(sizes, run, images, capsys):
  workdir, result = run
  found = scores(capsys, workdir, "--images", images, *sizes)
  # Printed with 6 decimals.
  np.testing.assert_allclose(
    sorted(found), sorted(result.image_scores), atol=2e-6
  )


def test_another_size_than_the_workdirs_is_refused(run, images, capsys):
  workdir, _ = run
  papers = ["--resize=448", "--crop=392"]
  message = error(capsys, workdir, "--images", images, *papers)
  assert str(workdir) in message
  assert "(80, 80)" in message and "(70, 70)" in message


@pytest.mark.parametrize("kind", ["file", "workdir"])
def test_sizes_that_nothing_records_are_asked_for(
  kind, converted, images, capsys
):
  path = MODEL if kind == "file" else converted
  message = error(capsys, path, "--images", images)
  assert message == f"error: {path} {ASKS}\n"


def test_the_file_is_not_converted_before_sizes_are_known(
  monkeypatch, images, capsys
):
  monkeypatch.setattr(image_scores, "converted", None)
  assert ASKS in error(capsys, MODEL, "--images", images)


def test_a_converted_workdir_scores_as_its_file(converted, images, capsys):
  of_file = scores(capsys, MODEL, "--images", images, *SIZES)
  of_workdir = scores(capsys, converted, "--images", images, *SIZES)
  assert len(of_file) == 6 and of_file == of_workdir


@pytest.mark.parametrize("kind", ["file", "workdir"])
@pytest.mark.parametrize("given, missing", [(0, "--crop"), (1, "--resize")])
def test_one_size_needs_the_other(
  kind, given, missing, converted, images, capsys
):
  path = MODEL if kind == "file" else converted
  message = error(capsys, path, "--images", images, SIZES[given])
  assert message.endswith(f"add {missing}.\n")


@pytest.mark.parametrize(
  "sizes, words",
  [
    (["--resize=0", "--crop=0"], "The crop's height is 0"),
    (["--resize=70", "--crop=84"], "larger than the 70 pixels"),
    (["--resize=80", "--crop=72"], "multiple of the patch size 14"),
  ],
)
def test_sizes_that_do_not_fit_are_refused(sizes, words, images, capsys):
  assert words in error(capsys, MODEL, "--images", images, *sizes)


@pytest.mark.parametrize("kind", ["file", "workdir"])
def test_images_are_needed(kind, converted, tmp_path, capsys):
  path = MODEL if kind == "file" else converted
  assert "needs --images: a folder" in error(capsys, path)
  nowhere = tmp_path / "nowhere"
  message = error(capsys, path, "--images", nowhere)
  assert f"{nowhere} does not exist" in message
  message = error(capsys, path, "--images", tmp_path, *SIZES)
  assert f"{tmp_path} holds no images" in message


def test_reference_arrays_are_not_compared_with_a_workdir(converted, capsys):
  reference = GOLDENS / "tiny_reg4_forward.npz"
  message = error(capsys, converted, "--images", reference)
  assert str(reference) in message and "to_torch" in message
