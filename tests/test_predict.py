"""The commands predict and calibrate, as a user types them."""

import contextlib
import csv
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import pytest

from inp_former_jax import calibrate, predict, train
from inp_former_jax.data.layouts.registry import read_layout
from inp_former_jax.inference.calibration import read_calibrations
from tests.conftest import ROOT, tiny_config


@pytest.fixture(scope="module")
def run(dataset_root, tmp_path_factory):
  """A workdir that training has calibrated, and its evaluation."""
  workdir = tmp_path_factory.mktemp("run")
  config = tiny_config(dataset_root)
  config.steps = 2
  return workdir, train.train_and_evaluate(config, workdir)


@pytest.fixture
def bare(run, tmp_path):
  """The same workdir without its calibration and evaluation."""
  workdir = tmp_path / "bare"
  workdir.mkdir()
  for name in ("checkpoints", "config.json"):
    os.symlink(run[0] / name, workdir / name)
  return workdir


@pytest.fixture
def images(dataset_root) -> list[pathlib.Path]:
  return [r.image for r in read_layout("mvtec", dataset_root).test]


def rows_of(out) -> list[dict[str, str]]:
  with open(out / "predictions.csv", newline="") as file:
    return list(csv.DictReader(file))


def test_scores_are_those_of_the_evaluation(run, dataset_root, tmp_path):
  """Training-time evaluation, test_scores.csv, and the command's table."""
  workdir, result = run
  out = tmp_path / "out"
  flags = ["--category=folder", "--batch-size=5"]
  roots = [str(p) for p in sorted(dataset_root.glob("*/test"))]
  assert predict.main([str(workdir), *roots, f"--out={out}", *flags]) == 0
  found = {row["source"]: row for row in rows_of(out)}
  with open(workdir / "test_scores.csv", newline="") as file:
    tested = {row["image"]: row for row in csv.DictReader(file)}
  assert len(found) == len(tested) == len(result.records)
  for record, score in zip(result.records, result.image_scores, strict=True):
    row, test_row = found[str(record.image)], tested[str(record.image)]
    assert float(row["score"]) == pytest.approx(score, abs=1e-6)
    assert float(test_row["score"]) == pytest.approx(score, abs=1e-6)
    assert row["category"] == record.category
    assert row["decision"] == test_row["decision"]
    assert row["threshold"] == test_row["threshold"]
  lines = (out / "predictions.jsonl").read_text().splitlines()
  assert [json.loads(line)["source"] for line in lines] == list(found)


def test_training_calibrates_with_the_held_out_images(run):
  (found,) = read_calibrations(run[0])
  assert found.evidence[""].normal == 9
  assert "held-out" in found.images
  before = found.thresholds
  assert calibrate.main([str(run[0])]) == 0
  (again,) = read_calibrations(run[0])
  for category, thresholds in before.items():
    assert again.thresholds_of(category).image == pytest.approx(
      thresholds.image, abs=1e-6
    )


def test_without_calibration_there_are_scores_and_advice(bare, images, capsys):
  assert predict.main([str(bare), str(images[0])]) == 0
  captured = capsys.readouterr()
  assert (
    "The model is not calibrated. Scores without decisions." in captured.err
  )
  assert f"inp_former_jax.calibrate {bare} IMAGES" in captured.err
  assert "the outer 23% of every image" in captured.err
  (line,) = captured.out.splitlines()
  assert line.endswith(str(images[0])) and 0 < float(line.split()[0]) < 2


def test_named_images_calibrate(bare, images, dataset_root, capsys):
  good = [str(path) for path in images if path.parent.name == "good"]
  flags = ["--image_rate=0.3", "--category=folder"]
  assert calibrate.main([str(bare), *good, *flags]) == 0
  (found,) = read_calibrations(bare)
  assert found.thresholds.keys() == {"", "board", "cloth", "washer"}
  assert "all images: image threshold" in capsys.readouterr().out
  labelled = [f"--labelled={dataset_root}", "--layout=mvtec", "--method=f1"]
  assert calibrate.main([str(bare), *labelled, "--tile=40,40,8"]) == 0
  assert [c.options.tile for c in read_calibrations(bare)] == [
    None,
    (40, 40, 8),
  ]
  assert predict.main([str(bare), good[0], "--zero-shot"]) == 0
  assert "calibrated for other options" in capsys.readouterr().err


def test_exit_codes(run, bare, images, tmp_path, capsys):
  """The threshold is the median of the normal images: some are above it."""
  scores = {
    str(r.image): s
    for r, s in zip(run[1].records, run[1].image_scores, strict=True)
  }
  low, high = min(scores, key=scores.get), max(scores, key=scores.get)
  workdir = str(bare)
  good = [str(path) for path in images if path.parent.name == "good"]
  assert calibrate.main([workdir, *good, "--image_rate=0.5"]) == 0
  assert predict.main([workdir, low, "--fail-on-anomaly"]) == 0
  capsys.readouterr()
  assert predict.main([workdir, high, low, "--fail-on-anomaly"]) == 1
  decisions = [x.split()[1] for x in capsys.readouterr().out.splitlines()]
  assert decisions == ["anomalous", "normal"]
  assert predict.main([workdir, high, low]) == 0
  broken = tmp_path / "broken.png"
  broken.write_text("text")
  for others in ([low], [high, low]):
    command = [workdir, str(broken), *others, "--fail_on_anomaly"]
    assert predict.main(command) == 3
  captured = capsys.readouterr()
  assert "1 could not be read:" in captured.err and str(broken) in captured.err
  assert low in captured.out  # the rest is answered


def test_pictures_of_all_kinds(run, images, tmp_path):
  kinds = ("overlay", "map", "mask", "contour")
  flags = [f"--out={tmp_path}", f"--save={','.join(kinds)}"]
  assert predict.main([str(run[0]), *map(str, images[:2]), *flags]) == 0
  for kind in kinds:
    assert len([p for p in (tmp_path / kind).rglob("*.*") if p.is_file()]) == 2


def test_overlays_without_any_scale_are_refused(bare, images, tmp_path, capsys):
  flags = [f"--out={tmp_path / 'out'}", "--save=overlay"]
  assert predict.main([str(bare), str(images[0]), *flags]) == 2
  assert "give --scale" in capsys.readouterr().err
  assert predict.main([str(bare), str(images[0]), *flags, "--scale=0,1"]) == 0


@pytest.mark.parametrize(
  "arguments, message",
  [
    (["{run}", "{root}/none.png"], "1 could not be read"),
    (["{run}", "{empty}"], "holds no images"),
    (["{empty}", "{image}"], "No checkpoint in"),
    (["{run}", "{image}", "--tile=9,9,9"], "--tile is 9,9,9"),
    (["{run}", "{image}", "--batch_size=0"], "--batch_size is 0"),
    (["{run}", "{image}", "--device=abacus"], "--device is 'abacus'"),
    (["{run}", "{image}", "--category=bolt"], "--category is 'bolt'"),
    (["{run}", "{image}", "--ignore={empty}/a.json"], "a.json cannot be read"),
    (["{run}", "{image}", "--out={image}"], "is a file; expected a folder"),
    (["{run}", "--watch={empty}/none"], "is no folder"),
  ],
)
def test_bad_input_is_a_line(run, images, tmp_path, capsys, arguments, message):
  names = {"run": run[0], "image": images[0], "empty": tmp_path, "root": "/"}
  code = predict.main([a.format(**names) for a in arguments])
  assert code in (2, 3)
  assert message in capsys.readouterr().err


@pytest.mark.parametrize(
  "arguments, message",
  [
    (["W"], "name images or folders"),
    (["W", "x.png", "--save=map"], "--save needs --out"),
    (["W", "x.png", "--save=heat", "--out=o"], "'heat' is none of overlay"),
    (["W", "x.png", "--scale=2,1"], "MIN is not below MAX"),
    (["W", "x.png", "--tile=9"], "--tile"),
  ],
)
def test_bad_flags_are_a_line(arguments, message, capsys):
  with pytest.raises(SystemExit) as caught:
    predict.main(arguments)
  assert caught.value.code == 2 and message in capsys.readouterr().err


@pytest.mark.parametrize(
  "arguments, message",
  [
    (["{run}", "--method=best"], "--method is 'best'"),
    (["{run}", "--image_rate=2"], "--image_rate is 2"),
    (["{run}", "--method=f1"], "no defective images"),
    (["{run}", "--labelled={empty}", "--layout=x"], "--layout is 'x'"),
    (["{empty}"], "No checkpoint in"),
  ],
)
def test_calibration_refuses_in_a_line(
  run, tmp_path, capsys, arguments, message
):
  names = {"run": run[0], "empty": tmp_path}
  assert calibrate.main([a.format(**names) for a in arguments]) == 2
  assert message in capsys.readouterr().err


def test_a_read_only_folder_is_told_before_loading(
  run, images, tmp_path, capsys
):
  blocked = tmp_path / "file"
  blocked.write_text("")
  out = blocked / "out"  # root may write anywhere, but not below a file
  assert predict.main([str(run[0]), str(images[0]), f"--out={out}"]) == 2
  assert f"{out} cannot be written" in capsys.readouterr().err


@pytest.mark.slow
def test_watching_answers_what_arrives_and_resumes(run, images, tmp_path):
  folder, out = tmp_path / "incoming", tmp_path / "incoming" / "answers"
  folder.mkdir()
  command = [sys.executable, "-m", "inp_former_jax.predict", str(run[0])]
  command += [f"--watch={folder}", f"--out={out}", "--save=overlay"]

  @contextlib.contextmanager
  def watching():
    with subprocess.Popen(
      command,
      cwd=ROOT,
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    ) as process:
      ended = {}
      yield ended
      process.send_signal(signal.SIGTERM)
      ended["stderr"] = process.communicate(timeout=60)[1]
      ended["code"] = process.returncode

  def wait_for(count):
    deadline = time.monotonic() + 120
    while len(sources()) < count and time.monotonic() < deadline:
      time.sleep(0.2)
    time.sleep(2)  # nothing else may follow
    return sources()

  def sources():
    path = out / "predictions.jsonl"
    if not path.is_file():
      return []
    lines = path.read_text().splitlines()
    return [pathlib.Path(json.loads(line)["source"]).name for line in lines]

  def copy(image, name):
    (folder / name).write_bytes(image.read_bytes())

  copy(images[0], "1.png")
  with watching() as ended:
    assert wait_for(1) == ["1.png"]
    copy(images[1], "2.png")
    (folder / "3.png").write_text("no image")
    assert wait_for(2) == ["1.png", "2.png"]
  assert ended["code"] == 3 and "3.png" in ended["stderr"]
  copy(images[2], "4.png")
  with watching():
    assert wait_for(3) == ["1.png", "2.png", "4.png"]
  assert len(rows_of(out)) == 3


def test_a_second_run_leaves_its_own_pictures_out(run, images, tmp_path):
  (tmp_path / "photo.png").write_bytes(images[0].read_bytes())
  command = [str(run[0]), str(tmp_path), f"--out={tmp_path / 'answers'}"]
  for _ in range(2):
    assert predict.main([*command, "--save=map,overlay"]) == 0
    assert len(rows_of(tmp_path / "answers")) == 1


def test_a_finished_run_keeps_the_calibration_of_its_user(
  run, dataset_root, tmp_path
):
  workdir = tmp_path / "copy"
  shutil.copytree(run[0], workdir)
  flags = [f"--labelled={dataset_root}", "--layout=mvtec", "--method=f1"]
  assert calibrate.main([str(workdir), *flags]) == 0
  config = tiny_config(dataset_root)
  config.steps = 2
  train.train_and_evaluate(config, workdir)  # finished before
  (found,) = read_calibrations(workdir)
  assert found.evidence[""].method == "f1"


def test_named_images_need_no_training_data(bare, images, tmp_path):
  recorded = json.loads((bare / "config.json").read_text())
  recorded["data"]["root"] = str(tmp_path / "elsewhere")
  (bare / "config.json").unlink()
  (bare / "config.json").write_text(json.dumps(recorded))
  good = [str(path) for path in images if path.parent.name == "good"]
  assert calibrate.main([str(bare), *good]) == 0
