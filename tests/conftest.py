"""Shared fixtures: tiny real files and a config that trains in seconds."""

import os
import pathlib
import subprocess
import sys
from collections.abc import Generator

import pytest
from ml_collections import ConfigDict

from inp_former_jax.configs import demo as demo_config
from inp_former_jax.data.demo import parts
from tests.training.checkpoints.buckets import serve_bucket

# Most of a test's time is compilation: what one test (or its subprocess) has
# compiled, the next one loads. Nothing above imports jax.
ROOT = pathlib.Path(__file__).parents[1]
os.environ.setdefault(
  "JAX_COMPILATION_CACHE_DIR", str(ROOT / ".pytest_cache" / "jax")
)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")
# A setting of glibc's own, its default, so that no command that a test calls
# makes the test's process keep the memory that it frees.
os.environ.setdefault("MALLOC_TRIM_THRESHOLD_", "131072")
# No test may write to the user's cache folder.
os.environ["INP_FORMER_JAX_COMPILATION_CACHE"] = "off"
GOLDENS = pathlib.Path(__file__).parent / "goldens"


@pytest.fixture(scope="session")
def dataset_root(tmp_path_factory) -> pathlib.Path:
  """A small demo data set: 6 train, 6 test, 3 validation images of 3 parts."""
  root = tmp_path_factory.mktemp("data") / "parts"
  return parts.write_demo_dataset(
    root,
    seed=3,
    image_size=96,
    train=6,
    test_good=2,
    test_per_defect=1,
    validation=3,
  )


@pytest.fixture
def config(dataset_root) -> ConfigDict:
  """The demo's config, cut down to a few steps at 70 pixels."""
  return tiny_config(dataset_root)


def tiny_config(root: pathlib.Path) -> ConfigDict:
  config = demo_config.get_config()
  config.model.encoder = "dinov2reg_vit_femto_14"
  config.model.encoder_weights = "random"
  config.data.layout = "mvtec"
  config.data.root = str(root)
  config.data.resize = 80
  config.data.crop = 70
  config.batch_size = 4
  config.evaluation.batch_size = 4
  config.evaluation.size = 64
  config.evaluation.grid_images = 3
  config.steps = 4
  config.log.every_steps = 1
  config.log.tensorboard = False
  config.checkpoint.every_steps = 0
  return config


def overrides(config: ConfigDict, prefix: str = "config") -> list[str]:
  """A config as command line flags."""
  flags = []
  for key, value in config.items():
    name = f"{prefix}.{key}"
    if isinstance(value, ConfigDict):
      flags += overrides(value, name)
    else:
      flags.append(f"--{name}={value}")
  return flags


def main_command(config: ConfigDict, workdir, *extra: str) -> list[str]:
  """The main entry, as a user types it."""
  return [
    sys.executable,
    "-m",
    "inp_former_jax.main",
    f"--config={ROOT / 'configs' / 'demo.py'}",
    f"--workdir={workdir}",
    *overrides(config),
    *extra,
  ]


def run_main(
  config: ConfigDict, workdir, *extra: str, devices: int = 1
) -> subprocess.CompletedProcess:
  """Runs the main entry to its end."""
  return subprocess.run(
    main_command(config, workdir, *extra),
    cwd=ROOT,
    env=os.environ | {"JAX_NUM_CPU_DEVICES": str(devices)},
    capture_output=True,
    text=True,
    timeout=600,
  )


def assert_agrees_on_eight_devices(program: str) -> None:
  """Runs a program on eight CPU devices, which prints "agreed" at its end."""
  run = subprocess.run(
    [sys.executable, "-c", program],
    cwd=ROOT,
    env=os.environ | {"JAX_NUM_CPU_DEVICES": "8", "JAX_PLATFORMS": "cpu"},
    capture_output=True,
    text=True,
    timeout=300,
  )
  assert run.returncode == 0, run.stderr
  assert run.stdout == "agreed\n"


@pytest.fixture(scope="module")
def bucket() -> Generator[str]:
  """The address of an empty bucket, on a server on loopback."""
  pytest.importorskip("gcsfs")
  with serve_bucket() as environment, pytest.MonkeyPatch.context() as patch:
    for name, value in environment.items():
      patch.setenv(name, value)
    yield "gs://bucket"
