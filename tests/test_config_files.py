"""Configs by name, by path, and of a workdir."""

import json
import pathlib
import shutil
import subprocess
import sys

import pytest
from ml_collections import ConfigDict

from inp_former_jax import config_files
from inp_former_jax.configs import common, distill
from tests.conftest import ROOT, tiny_config

LEAVES = sorted(
  path.stem
  for path in (ROOT / "configs").glob("*.py")
  if path.stem not in ("__init__", "common", "options")
)


def test_every_leaf_has_a_name():
  assert config_files.config_names() == LEAVES
  assert {"demo", "folder", "mvtec", "visa", "realiad"} < set(LEAVES)


@pytest.mark.parametrize("name", LEAVES)
def test_a_name_and_a_path_give_the_same_config(name, monkeypatch, tmp_path):
  by_name = config_files.load_config(name)
  by_path = config_files.load_config(str(ROOT / "configs" / f"{name}.py"))
  assert by_name.to_dict() == by_path.to_dict()
  # Also where there is no such file: the path is that of the repository.
  monkeypatch.chdir(tmp_path)
  elsewhere = config_files.load_config(f"configs/{name}.py")
  assert elsewhere.to_dict() == by_name.to_dict()


@pytest.mark.parametrize("name", ["mvtec", "configs/mvtec.py"])
def test_options_follow_a_colon(name):
  config = config_files.load_config(f"{name}:few_shot,shots=2")
  assert config.data.shots == 2


def test_fields_cannot_be_added():
  config = config_files.load_config("mvtec")
  config.batch_size = 4
  with pytest.raises(AttributeError, match="batch_size"):
    config.bach_size = 4


def test_a_file_of_the_users_own_goes_before_the_projects(
  tmp_path, monkeypatch
):
  (tmp_path / "configs").mkdir()
  (tmp_path / "configs" / "mvtec.py").write_text(
    "from inp_former_jax.configs import common\n\n\n"
    "def get_config():\n"
    "  config = common.get_config()\n"
    "  config.batch_size = 3\n"
    "  return config\n"
  )
  monkeypatch.chdir(tmp_path)
  assert config_files.load_config("configs/mvtec.py").batch_size == 3
  assert config_files.load_config("mvtec").batch_size == 16


@pytest.mark.parametrize(
  "spec, words",
  [
    ("mvtek", "no config named 'mvtek'. Did you mean 'mvtec'"),
    ("no/such.py", "no/such.py does not exist"),
    ("configs/no_such.py", "configs/no_such.py does not exist"),
    ("mvtec:singleclass", "Did you mean 'single_class'"),
    ("mvtec:shots=two", "shots=two"),
    ("mvtec:few_shot,shots=0", "a whole number above 0; found '0'"),
    ("demo:few_shot", "demo takes no options"),
    ("options", "no function get_config"),
    ("no/such/config.json", "nothing has been trained"),
    ("a/config.json:few_shot", "takes no options"),
  ],
)
def test_what_cannot_be_loaded_is_named(spec, words):
  with pytest.raises(config_files.ConfigError) as error:
    config_files.load_config(spec)
  assert words in str(error.value) and "\n" not in str(error.value)


def test_recorded_config_is_the_same_config(tmp_path):
  config = common.get_config()
  config.data.categories = ("a", "b")
  config.data.sources = (("visa", "/no/such", ("candle",)), ("mvtec", ""))
  config_files.write_recorded(config, tmp_path)
  recorded = config_files.load_config(str(tmp_path / "config.json"))
  assert recorded.to_dict() == config.to_dict()
  assert isinstance(recorded.data.sources[0], tuple)


def test_relative_paths_become_absolute_and_words_stay(tmp_path, monkeypatch):
  for name in ("parts", "random"):
    (tmp_path / name).mkdir()
  monkeypatch.chdir(tmp_path)
  config = common.get_config()
  config.data.root = "parts"
  config.data.sources = (("folder", "parts"), ("visa", "no/such", ("pcb1",)))
  config.model.encoder_weights = "random"
  config.cache_dir = "caches"  # made later
  absolute = config_files.with_absolute_paths(config.lock())
  parts = str(tmp_path / "parts")
  assert absolute.data.root == parts and config.data.root == "parts"
  assert absolute.data.sources == (
    ("folder", parts),
    ("visa", "no/such", ("pcb1",)),
  )
  assert absolute.model.encoder_weights == "random"
  assert absolute.cache_dir == str(tmp_path / "caches")
  config.cache_dir = ""
  assert not config_files.with_absolute_paths(config).cache_dir


def test_the_recorded_config_of_a_distillation_is_one_that_distils(tmp_path):
  config = distill.get_config()
  config.views.folders = ("/no/such",)
  config.steps = 7
  config_files.write_recorded(config, tmp_path)
  recorded = config_files.load_config(tmp_path)
  assert recorded.to_dict() == config.to_dict()
  assert config_files.kind_of(recorded) == config_files.DISTILLATION


def test_paths_of_a_distillation_become_absolute(tmp_path, monkeypatch):
  for name in ("parts", "teacher", "earlier.npz"):
    (tmp_path / name).mkdir()
  monkeypatch.chdir(tmp_path)
  config = distill.get_config()
  config.views.folders = ("parts", "no/such")
  config.teacher.weights = "earlier.npz"
  absolute = config_files.with_absolute_paths(config)
  assert absolute.views.folders == (str(tmp_path / "parts"), "no/such")
  assert absolute.teacher.weights == str(tmp_path / "earlier.npz")
  assert absolute.student.initial == "teacher"
  config.student.initial = "earlier.npz"
  absolute = config_files.with_absolute_paths(config)
  assert absolute.student.initial == str(tmp_path / "earlier.npz")


def test_a_workdir_is_a_config_whatever_its_name(tmp_path):
  workdir = tmp_path / "10:30"
  workdir.mkdir()
  config = common.get_config()
  config.seed = 7
  config_files.write_recorded(config, workdir)
  assert config_files.load_config(workdir).seed == 7
  assert config_files.load_config(str(workdir / "config.json")).seed == 7


def test_a_record_from_before_a_field_came_has_its_default(tmp_path):
  fields = common.get_config().to_dict()
  del fields["log"]["tensorboard"]
  (tmp_path / "config.json").write_text(json.dumps(fields))
  assert config_files.load_config(tmp_path).log.tensorboard is True


def test_a_config_file_may_hold_a_dataclass(tmp_path):
  (tmp_path / "mine.py").write_text(
    "from __future__ import annotations\n"
    "import dataclasses\n"
    "from inp_former_jax.configs import common\n\n\n"
    "@dataclasses.dataclass\n"
    "class Sizes:\n"
    "  crop: int = 28\n\n\n"
    "def get_config():\n"
    "  config = common.get_config()\n"
    "  config.data.crop = Sizes().crop\n"
    "  return config\n"
  )
  assert config_files.load_config(tmp_path / "mine.py").data.crop == 28


@pytest.mark.parametrize("text", ['{"seed": 1', "[1, 2]", "5", "null", "{}"])
def test_a_damaged_record_is_named(tmp_path, text):
  path = tmp_path / "config.json"
  path.write_text(text)
  with pytest.raises(config_files.ConfigError, match=str(path)):
    config_files.load_config(str(path))


def run_main(folder: pathlib.Path, *flags: str, **environment: str):
  return subprocess.run(
    [sys.executable, "-m", "inp_former_jax.main", *flags],
    cwd=folder,
    env=environment or None,
    capture_output=True,
    text=True,
    timeout=600,
  )


def table_of(output: str) -> str:
  """The table without the line below it, which names the workdir."""
  return output.split("Test set after")[1].split("metrics.json")[0]


def flags_of(config: ConfigDict) -> list[str]:
  """The fields that make the demo's config a tiny one."""
  changed = ["model", "data", "evaluation", "log", "checkpoint"]
  flags = [
    f"--config.{section}.{name}={value}"
    for section in changed
    for name, value in config[section].items()
  ]
  return [*flags, "--config.batch_size=4", f"--config.steps={config.steps}"]


@pytest.mark.slow
def test_a_workdir_is_evaluated_and_finished_without_a_config(
  dataset_root, tmp_path
):
  shutil.copytree(dataset_root, tmp_path / "parts")
  config = tiny_config(pathlib.Path("parts"))
  run = run_main(tmp_path, "--config=demo", "--workdir=w", *flags_of(config))
  assert run.returncode == 0, run.stderr
  assert "Training for 4 steps" in run.stdout
  metrics = (tmp_path / "w" / "metrics.json").read_bytes()
  table = table_of(run.stdout)

  elsewhere = tmp_path / "elsewhere"
  elsewhere.mkdir()
  run = run_main(elsewhere, "--mode=eval", "--workdir=../w")
  assert run.returncode == 0, run.stderr
  assert table_of(run.stdout) == table
  changed = run_main(
    elsewhere, "--mode=eval", "--workdir=../w", "--config.evaluation.size=32"
  )
  assert changed.returncode == 0, changed.stderr
  assert table_of(changed.stdout) != table

  run = run_main(tmp_path, "--workdir=w")
  assert run.returncode == 0, run.stderr
  assert "Finished before: step 4 of 4." in run.stdout
  assert (tmp_path / "w" / "metrics.json").read_bytes() == metrics


@pytest.mark.slow
def test_without_a_config_and_a_record_one_line_says_what_to_do(tmp_path):
  (tmp_path / "w").mkdir()
  run = run_main(tmp_path, "--mode=eval", "--workdir=w")
  assert run.returncode == 1
  assert "--config is missing (w holds no config.json)" in run.stderr
  assert run.stderr.count("\n") == 1


@pytest.mark.parametrize(
  "text",
  [
    '{"protocol": ' * 100_000,
    '{"protocol": ' * 450 + "1" + "}" * 450,
    '{"protocol": "multi_class", "seed": ' + "7" * 5000 + "}",
  ],
)
def test_a_record_that_cannot_be_read_is_one_line(tmp_path, text):
  path = tmp_path / "config.json"
  path.write_text(text)
  with pytest.raises(config_files.ConfigError) as error:
    config_files.load_config(tmp_path)
  message = str(error.value)
  assert message.startswith(f"{path} does not hold a config (")
  assert "\n" not in message
