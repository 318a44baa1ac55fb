"""The command `inp-former`: as it is typed, and what a user gets wrong."""

import importlib.util
import json
import pathlib
import runpy
import subprocess
import sys

import pytest

import inp_former_jax
from inp_former_jax import __main__ as console
from inp_former_jax import arguments
from tests.conftest import ROOT, overrides

SCRIPT = pathlib.Path(sys.executable).parent / "inp-former"
BY_ABSL = {
  "train",
  "eval",
  "benchmark",
}  # their usage is the module's docstring


def inp_former(*arguments, cwd=ROOT) -> subprocess.CompletedProcess:
  return subprocess.run(
    [SCRIPT, *arguments], cwd=cwd, capture_output=True, text=True, timeout=600
  )


def test_the_script_is_installed():
  assert SCRIPT.is_file(), "run `pip install -e .` in this checkout again"


def test_help_lists_the_commands_with_a_line_each(capsys):
  assert console.main(["--help"]) == 0
  text = capsys.readouterr().out
  for name, command in console.SUB_COMMANDS.items():
    assert f"  {name:<11}{command.summary}\n" in text
  assert max(map(len, text.splitlines())) <= 80
  assert console.main([]) == 2
  assert capsys.readouterr().err == text


def test_installed_script_prints_help_and_version():
  run = inp_former("--help")
  assert run.returncode == 0 and "  calibrate " in run.stdout
  run = inp_former("--version")
  assert run.stdout == f"inp-former-jax {inp_former_jax.__version__}\n"
  run = inp_former()
  assert run.returncode == 2 and "usage: inp-former COMMAND" in run.stderr


@pytest.mark.parametrize(
  "name, hint",
  [("predcit", "Did you mean 'predict'?"), ("--mode=eval", ""), ("xyz", "")],
)
def test_unknown_commands_are_one_line(name, hint, capsys):
  assert console.main([name]) == 2
  text = capsys.readouterr().err
  assert text.startswith(f"error: inp-former has no command {name!r}.")
  assert hint in text and ("Did you mean" in text) == bool(hint)
  assert text.count("\n") == 1 and "benchmark" in text


@pytest.mark.parametrize(
  "name, given, argv",
  [
    ("train", ["--config=demo"], ["--mode=train", "--config=demo"]),
    ("eval", ["--workdir=w"], ["--mode=eval", "--workdir=w"]),
    ("data", ["--root", "a b"], ["--root", "a b"]),
    ("predict", ["w", "x.png"], ["w", "x.png"]),
  ],
)
def test_arguments_are_handed_on(name, given, argv, monkeypatch):
  runs = []
  monkeypatch.setattr(
    runpy, "run_module", lambda *a, **k: runs.append((a, k, sys.argv[1:]))
  )
  monkeypatch.setattr(sys, "argv", ["inp-former", name, *given])
  monkeypatch.setattr(arguments, "_program", "")
  assert console.main() == 0
  module = console.SUB_COMMANDS[name].module
  as_main = {"run_name": "__main__", "alter_sys": True}
  assert runs == [((module,), as_main, argv)]
  assert arguments.program(module) == f"inp-former {name}"


def test_a_command_called_by_its_module_is_named_so():
  assert arguments.program("inp_former_jax.x") == "python -m inp_former_jax.x"


@pytest.mark.parametrize("name", ["train", "eval"])
def test_the_mode_is_that_of_the_command(name, monkeypatch):
  with pytest.raises(SystemExit, match=f"inp-former {name}` takes no --mode"):
    console.main([name, "--mode=eval"])


@pytest.mark.parametrize("name", console.SUB_COMMANDS)
def test_every_command_shows_its_help(name):
  if importlib.util.find_spec(console.SUB_COMMANDS[name].module) is None:
    pytest.skip(f"{console.SUB_COMMANDS[name].module} is not written yet")
  run = inp_former(name, "--help")
  text = run.stdout + run.stderr
  assert "Traceback" not in text and "RuntimeWarning" not in text
  if name in BY_ABSL:
    assert "python -m inp_former_jax." in text and "--config" in text
  else:
    assert run.returncode == 0
    assert run.stdout.startswith(f"usage: inp-former {name} ")


def test_errors_and_exit_codes_are_those_of_the_command(tmp_path):
  run = inp_former("train", "--config=mvtek", f"--workdir={tmp_path}")
  assert run.returncode == 1 and "Did you mean 'mvtec'?" in run.stderr
  assert run.stderr.count("\n") == 1
  run = inp_former("data", "--layout=mvtec", f"--root={tmp_path}/none")
  assert run.returncode == 2 and run.stderr.startswith("error: ")
  run = inp_former("data", "--layout=none", "--root=x")
  assert run.returncode == 2
  assert run.stderr.startswith("usage: inp-former data ")


def test_python_m_is_the_same_command(tmp_path):
  run = subprocess.run(
    [sys.executable, "-m", "inp_former_jax", "data", "--help"],
    cwd=ROOT,
    capture_output=True,
    text=True,
  )
  assert run.stdout == inp_former("data", "--help").stdout != ""


@pytest.mark.slow
def test_train_eval_data_and_benchmark(config, tmp_path):
  config.data.num_workers = 1  # it imports the command's module again
  flags = ["--config=demo", "--workdir=w", *overrides(config)]
  trained = inp_former("train", *flags, cwd=tmp_path)
  assert trained.returncode == 0, trained.stderr
  evaluated = inp_former("eval", "--workdir=w", cwd=tmp_path)
  assert evaluated.returncode == 0, evaluated.stderr
  tables = [
    run.stdout.split("Test set after")[1] for run in (trained, evaluated)
  ]
  assert "washer" in tables[0] and tables[0] == tables[1]
  assert json.loads((tmp_path / "w" / "metrics.json").read_text())["step"] == 4
  root = f"--root={config.data.root}"
  found = inp_former("data", "--layout=mvtec", root, "--quick", cwd=tmp_path)
  assert found.returncode == 0 and "washer" in found.stdout
  cuts = ["--config=demo", "--workdir=w", "--rounds=1", "--seconds=0.1"]
  speed = inp_former("benchmark", *cuts, cwd=tmp_path)
  assert speed.returncode == 0 and "images/s" in speed.stdout, speed.stderr
