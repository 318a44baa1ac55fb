"""The command line: what a user types, and what a user gets wrong."""

import os
import pathlib
import shutil
import subprocess
import sys

import pytest

from inp_former_jax import evaluate, train
from inp_former_jax.data.errors import DataError
from tests.conftest import ROOT, main_command, run_main


def main(*flags: str) -> subprocess.CompletedProcess:
  return subprocess.run(
    [sys.executable, "-m", "inp_former_jax.main", *flags],
    cwd=ROOT,
    capture_output=True,
    text=True,
    timeout=300,
  )


@pytest.mark.parametrize(
  "flag, words",
  [
    ("--config.bach_size=4", ["bach_size", "batch_size"]),
    ("--config.model.dtpye=float32", ["dtpye", "dtype"]),
    ("--config.batch_size=four", ["config.batch_size", "four"]),
    ("--config.loss.gamma=high", ["config.loss.gamma", "high"]),
    ("--config.model.use_inps=maybe", ["config.model.use_inps", "maybe"]),
    ("--confg.batch_size=4", ["confg"]),
    ("--mode=trian", ["mode", "train"]),
  ],
)
def test_wrong_flags_are_named(tmp_path, flag, words):
  run = main("--config=configs/demo.py", f"--workdir={tmp_path}", flag)
  assert run.returncode != 0
  for word in words:
    assert word in run.stdout + run.stderr
  assert "Traceback" not in run.stderr
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
  "config, words",
  [
    ("mvtec:singleclass", "Did you mean 'single_class'?"),
    ("mvtec:shots=two", "shots=two"),
    ("configs/mvtek.py", "configs/mvtek.py does not exist"),
    ("mvtek", "Did you mean 'mvtec'?"),
  ],
)
def test_wrong_configs_are_one_line(tmp_path, config, words):
  run = main(f"--config={config}", f"--workdir={tmp_path}")
  assert run.returncode == 1
  assert run.stderr.startswith("error: ") and words in run.stderr
  assert run.stderr.count("\n") == 1
  assert not list(tmp_path.iterdir())


def test_help_shows_config_and_workdir_with_examples():
  text = " ".join(main("--help").stdout.split())
  for example in (
    "--config=mvtec:few_shot,shots=2",
    "--config=configs/mvtec.py",
    "--config.data.root=/data/mvtec",
    "--workdir=workdir/parts",
    "--mode=eval --workdir=workdir/demo",
  ):
    assert example in text


def test_overrides_without_a_config_are_one_line(tmp_path):
  run = main(f"--workdir={tmp_path}", "--config.data.root=parts")
  assert run.returncode == 1 and run.stderr.count("\n") == 1
  assert "--config is missing" in run.stderr


@pytest.mark.parametrize(
  "flag", ["--config.data.nosuch=1", "--config.seed.x=1"]
)
def test_impossible_overrides_are_one_line(tmp_path, flag):
  run = main("--config=demo", f"--workdir={tmp_path}", flag)
  assert run.returncode == 1 and run.stderr.count("\n") == 1
  assert run.stderr.startswith("error: the config ")


def test_missing_workdir_is_one_line():
  run = main("--config=demo")
  assert run.returncode == 1 and run.stderr.count("\n") == 1
  assert "--workdir is missing" in run.stderr


@pytest.mark.parametrize(
  "flags, words",
  [
    (["--config=demo", "--config.seed=-1"], "config.seed is -1"),
    (
      ["--config=super_multi_class"],
      "--config.data.sources=\"(('mvtec', '/data/mvtec'), ",
    ),
    (
      ["--config=distill"],
      "is that of a distillation; expected that of a training run",
    ),
  ],
)
def test_wrong_values_name_their_field(tmp_path, flags, words):
  run = main(*flags, f"--workdir={tmp_path}")
  assert run.returncode == 1
  assert run.stderr.startswith("error: ") and words in run.stderr
  # What takes time is announced before it is done.
  assert run.stdout.startswith("Loading ")


def test_normal_images_alone_get_advice_for_a_folder(config, tmp_path):
  images = sorted((pathlib.Path(config.data.root) / "washer").rglob("*.png"))
  normal = [path for path in images if path.parent.name == "good"]
  (tmp_path / "parts").mkdir()
  for path in normal[:6]:
    shutil.copy(path, tmp_path / "parts")
  config.data.layout, config.data.root = "folder", str(tmp_path / "parts")
  train.train_and_evaluate(config, tmp_path / "run")
  with pytest.raises(DataError, match="test_normal/") as error:
    evaluate.evaluate_checkpoint(config, tmp_path / "run")
  assert "test/good" not in str(error.value)


def test_images_that_were_trained_on_are_not_tested_on_silently(
  config, tmp_path, capsys
):
  source = pathlib.Path(config.data.root) / "washer"
  parts = tmp_path / "parts"
  shutil.copytree(source / "train" / "good", parts / "normal")
  config.data.layout, config.data.root = "folder", str(parts)
  train.train_and_evaluate(config, tmp_path / "run")
  # Only now there are defects, so that a part of normal/ is held out.
  defects = sorted((source / "test").iterdir())[0]
  shutil.copytree(defects, parts / "defect")
  capsys.readouterr()
  evaluate.evaluate_checkpoint(config, tmp_path / "run")
  output = capsys.readouterr().out
  assert "Warning: the model was trained on 6 images" in output
  # The same split as in training is not warned of.
  shutil.copytree(source / "test" / "good", parts / "test_normal")
  evaluate.evaluate_checkpoint(config, tmp_path / "run")
  assert "Warning" not in capsys.readouterr().out


@pytest.mark.parametrize("flags", [[], ["--mode=eval", "--workdir=no/such"]])
def test_what_is_missing_is_one_line(flags):
  run = main(*flags)
  assert run.returncode == 1 and run.stderr.count("\n") == 1
  assert "is missing" in run.stderr


def test_distributed_without_processes_is_one_message(tmp_path):
  run = main("--config=demo", f"--workdir={tmp_path}", "--distributed")
  assert run.returncode == 1 and "Traceback" not in run.stderr
  assert "--coordinator=HOST:PORT" in run.stderr


@pytest.mark.parametrize(
  "flag, wrong, right",
  [
    ("--config.model.dtpye=float32", "dtpye", "dtype"),
    ("--config.modle.encoder=x", "modle", "model"),
  ],
)
def test_unknown_field_is_one_plain_sentence(tmp_path, flag, wrong, right):
  run = main("--config=configs/demo.py", f"--workdir={tmp_path}", flag)
  assert run.stderr == (
    f"error: the config has no field '{wrong}'. "
    f'Did you mean "{right}" instead of "{wrong}"?\n'
  )


def test_process_flags_without_distributed_are_refused(tmp_path):
  flag = "--num_processes=2"
  run = main("--config=configs/demo.py", f"--workdir={tmp_path}", flag)
  assert run.returncode != 0
  assert "need --distributed" in run.stdout + run.stderr


@pytest.mark.parametrize(
  "flags, words",
  [
    (["--num_processes=2", "--process_id=-1"], "--process_id is -1"),
    (["--num_processes=2", "--process_id=2"], "is 2; expected a whole number "),
    (["--num_processes=0", "--process_id=0"], "--num_processes is 0"),
  ],
)
def test_impossible_process_numbers_are_one_line(tmp_path, flags, words):
  run = main(
    *("--config=demo", f"--workdir={tmp_path}", "--distributed", *flags),
    "--coordinator=localhost:1",
  )
  assert run.returncode == 1 and words in run.stderr
  assert run.stderr.startswith("error: ") and run.stderr.count("\n") == 2


def test_a_number_of_thousands_of_digits_is_no_traceback(tmp_path):
  digits = "7" * 5000
  run = main(
    "--config=demo", f"--workdir={tmp_path}", f"--config.seed={digits}"
  )
  assert run.returncode == 1 and "Traceback" not in run.stderr
  assert "config.seed" in run.stderr + run.stdout


@pytest.mark.slow
def test_error_in_training_keeps_checkpoints_and_is_one_message(
  config, tmp_path, dataset_root
):
  shutil.copytree(dataset_root / "washer", tmp_path / "washer")
  config.data.root = str(tmp_path)
  config.steps, config.checkpoint.every_steps = 40, 1
  config.data.num_threads = 1
  # Far enough down the order for a checkpoint to be complete before.
  bad = sorted((tmp_path / "washer" / "train" / "good").iterdir())[0]
  config.batch_size = 1
  bad.write_bytes(bad.read_bytes()[:500])
  run = run_main(config, tmp_path / "run")
  assert run.returncode == 1
  assert str(bad) in run.stderr and "Traceback" not in run.stderr
  steps = len((tmp_path / "run" / "log.jsonl").read_text().splitlines())
  saved = [p.name for p in (tmp_path / "run" / "checkpoints").iterdir()]
  assert steps == 0 or str(steps) in saved


@pytest.mark.slow
def test_full_disk_while_saving_is_named(config, tmp_path):
  # A limit on file sizes stops orbax in the midst of a save, as a full disk.
  command = main_command(config, tmp_path / "run")
  limited = ["bash", "-c", 'ulimit -f 100 && exec "$@"', "limited", *command]
  environment = os.environ | {"JAX_ENABLE_COMPILATION_CACHE": "false"}
  run = subprocess.run(
    limited, cwd=ROOT, env=environment, capture_output=True, text=True
  )
  assert run.returncode == 1, run.stderr
  assert "could not be written" in run.stderr


def test_errors_are_one_message_without_traceback(tmp_path):
  run = main("--config=configs/mvtec.py", f"--workdir={tmp_path}")
  assert run.returncode == 1
  assert run.stderr.startswith("error: config.data.root is empty")
  assert "Traceback" not in run.stderr


@pytest.mark.slow
def test_train_then_eval_from_the_command_line(config, tmp_path):
  config.data.num_workers = 2
  run = run_main(config, tmp_path)
  assert run.returncode == 0, run.stderr
  assert "mean" in run.stdout and "step 4/4" in run.stdout
  first = (tmp_path / "metrics.csv").read_bytes()
  (tmp_path / "metrics.csv").unlink()
  run = run_main(config, tmp_path, "--mode=eval")
  assert run.returncode == 0, run.stderr
  assert (tmp_path / "metrics.csv").read_bytes() == first
