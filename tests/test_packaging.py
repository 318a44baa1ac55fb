"""The wheel: what it holds, and that it works in an empty folder."""

import os
import pathlib
import shutil
import subprocess
import sys
import tomllib
import zipfile

import pytest

import inp_former_jax.configs
from tests.conftest import ROOT

CUTS = [
  "--config.steps=2",
  "--config.batch_size=4",
  "--config.data.resize=80",
  "--config.data.crop=70",
  "--config.model.encoder=dinov2reg_vit_femto_14",
  "--config.model.encoder_weights=random",
  "--config.evaluation.size=64",
  "--config.log.tensorboard=False",
]


def test_every_package_is_in_the_list():
  found = {
    ".".join(path.parent.relative_to(ROOT).parts)
    for folder in ("inp_former_jax", "weights_conversion")
    for path in (ROOT / folder).rglob("__init__.py")
  }
  settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
  listed = settings["tool"]["setuptools"]["packages"]
  assert set(listed) == found | {
    "inp_former_jax.assets",
    "inp_former_jax.configs",
  }
  assert len(listed) == len(set(listed))


def test_the_tests_use_the_configs_of_this_checkout():
  folder = pathlib.Path(inp_former_jax.configs.__file__).parent
  assert folder == ROOT / "configs", "run `pip install -e .` in this checkout"


def run(*command: str, cwd, **environment: str) -> subprocess.CompletedProcess:
  done = subprocess.run(
    command,
    cwd=cwd,
    env=os.environ | environment,
    capture_output=True,
    text=True,
    timeout=600,
  )
  assert done.returncode == 0, done.stdout + done.stderr
  return done


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
  folder = tmp_path_factory.mktemp("wheel")
  pip = (sys.executable, "-m", "pip")
  # Of a copy: a build leaves build/ and *.egg-info behind.
  copy = folder / "source"
  copy.mkdir()
  for name in ("pyproject.toml", "README.md", "LICENSE"):
    shutil.copy(ROOT / name, copy)
  for name in ("inp_former_jax", "configs", "weights_conversion"):
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / name, copy / name, ignore=ignored)
  run(*pip, "wheel", "--quiet", "--no-deps", "-w", ".", str(copy), cwd=folder)
  (path,) = folder.glob("*.whl")
  return path


@pytest.mark.slow
def test_wheel_does_not_claim_the_name_configs(wheel):
  names = zipfile.ZipFile(wheel).namelist()
  top = {name.split("/")[0] for name in names}
  assert {name for name in top if not name.endswith(".dist-info")} == {
    "inp_former_jax",
    "weights_conversion",
  }
  assert "inp_former_jax/configs/mvtec.py" in names
  assert "inp_former_jax/py.typed" in names
  assert any(name.startswith("inp_former_jax/assets/demo_") for name in names)


@pytest.mark.slow
def test_wheel_runs_in_a_folder_that_has_other_configs(wheel, tmp_path):
  installed, empty = tmp_path / "installed", tmp_path / "empty"
  pip = (sys.executable, "-m", "pip", "install", "--quiet", "--no-deps")
  run(*pip, "--target", str(installed), str(wheel), cwd=tmp_path)
  (empty / "configs").mkdir(parents=True)
  (empty / "configs" / "__init__.py").write_text("raise ImportError('foreign')")

  def main(*flags: str) -> str:
    command = (sys.executable, "-m", "inp_former_jax.main", *flags)
    # Goes before the checkout that this environment has installed.
    return run(*command, cwd=empty, PYTHONPATH=str(installed)).stdout

  where = "import inp_former_jax as i; print(i.__file__)"
  done = run(sys.executable, "-c", where, cwd=empty, PYTHONPATH=str(installed))
  assert done.stdout.startswith(str(installed))

  trained = main("--config=demo", "--workdir=w", *CUTS)
  evaluated = main("--mode=eval", "--workdir=w")
  table = trained.split("Test set after")[1]
  assert "washer" in table and evaluated.split("Test set after")[1] == table
  # By the console command.
  script = str(installed / "bin" / "inp-former")
  run(script, "--version", cwd=empty, PYTHONPATH=str(installed))
  done = run(
    script, "eval", "--workdir=w", cwd=empty, PYTHONPATH=str(installed)
  )
  assert done.stdout.split("Test set after")[1] == table
  # By the path that README and the docs use, too.
  evaluated = main(
    "--mode=eval", "--config=configs/demo.py", "--workdir=w", *CUTS
  )
  assert evaluated.split("Test set after")[1] == table
