"""The encoder within the package: there, unchanged, in the wheel."""

import dataclasses
import pathlib
import subprocess
import sys
import zipfile

import jax
import numpy as np
import pytest
from flax import nnx

from inp_former_jax.models import pretrained as command
from inp_former_jax.models import vit
from inp_former_jax.weights import (
  checksums,
  pretrained,
  sources,
)
from inp_former_jax.weights.encoders import DEMO_ENCODER, ENCODERS, get_encoder

NAME = DEMO_ENCODER
ROOT = pathlib.Path(__file__).parents[2]


def abstract():
  spec = get_encoder(NAME)
  return nnx.state(
    nnx.eval_shape(
      lambda: vit.VisionTransformer(
        spec.variant, spec.num_registers, rngs=nnx.Rngs(0)
      )
    )
  )


@pytest.fixture
def no_network(monkeypatch):
  def refuse(*_, **__):
    raise AssertionError("no network, please")

  monkeypatch.setattr("socket.socket.connect", refuse)
  monkeypatch.setattr("socket.create_connection", refuse)


def test_loads_by_its_name_without_network(no_network):
  weights = pretrained.load_weights(NAME, "", abstract())
  assert weights.sha256 == get_encoder(NAME).bundled_sha256
  leaves = jax.tree.leaves(weights.state)
  assert all(x.dtype == np.float32 and np.isfinite(x).all() for x in leaves)
  assert 4e6 < sum(x.size for x in leaves) < 6e6


def test_is_at_most_six_megabytes():
  assert sources.bundled(NAME).path.stat().st_size <= 6_000_000


def test_a_changed_file_is_refused(monkeypatch):
  changed = dataclasses.replace(ENCODERS[NAME], bundled_sha256="0" * 64)
  monkeypatch.setitem(ENCODERS, NAME, changed)
  with pytest.raises(checksums.ChangedFileError, match="has changed"):
    pretrained.load_weights(NAME, "", abstract())


def test_a_missing_file_is_named(monkeypatch):
  gone = dataclasses.replace(ENCODERS[NAME], bundled_file="gone.npz")
  monkeypatch.setitem(ENCODERS, NAME, gone)
  with pytest.raises(FileNotFoundError, match="gone.npz.*damaged"):
    pretrained.load_weights(NAME, "", abstract())


@pytest.mark.parametrize("arguments", [["fetch", NAME], ["import", NAME, "x"]])
def test_it_comes_from_nowhere_else(arguments):
  with pytest.raises(SystemExit, match="comes with this package"):
    command.main(arguments)


def test_where_tells_its_path(capsys):
  command.main(["where", NAME])
  assert "demo_vit_tiny_14.npz" in capsys.readouterr().out


@pytest.mark.slow
def test_the_wheel_contains_it(tmp_path):
  subprocess.run(["git", "clone", "-q", ROOT, tmp_path / "clone"], check=True)
  command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"]
  command += ["--wheel-dir", tmp_path / "wheels", tmp_path / "clone"]
  subprocess.run(command, check=True)
  (wheel,) = (tmp_path / "wheels").glob("*.whl")
  inside = "inp_former_jax/assets/demo_vit_tiny_14.npz"
  with zipfile.ZipFile(wheel) as archive:
    content = archive.read(inside)
  assert content == (ROOT / inside).read_bytes()
