"""`import inp_former_jax`: what a library user finds there."""

import subprocess
import sys

import jax
import numpy as np
import pytest

import inp_former_jax as inp
from inp_former_jax.models import vit


def test_importing_it_imports_nothing_else():
  code = (
    "import sys, inp_former_jax; "
    "print({'jax', 'flax', 'orbax', 'numpy'} & set(sys.modules))"
  )
  run = subprocess.run(
    [sys.executable, "-c", code], capture_output=True, text=True, check=True
  )
  assert run.stdout.strip() == "set()"


def test_all_names_are_there_and_documented():
  assert set(inp._EXPORTS) == set(inp.__all__)
  assert set(inp.__all__) <= set(dir(inp))
  for name in inp.__all__:
    value = getattr(inp, name)
    assert name in inp.__doc__
    assert isinstance(value, dict) or value.__doc__


def test_help_shows_them():
  code = "import inp_former_jax as inp; help(inp)"
  run = subprocess.run(
    [sys.executable, "-c", code], capture_output=True, text=True, check=True
  )
  for name in set(inp.__all__) - {"losses", "metrics", "scoring", "load_model"}:
    assert f"    {name}" in run.stdout or f"class {name}(" in run.stdout, name
  for name in ("losses", "metrics", "scoring", "load_model"):
    assert name in run.stdout


def test_other_names_are_refused():
  with pytest.raises(AttributeError, match="no_such"):
    inp.no_such  # noqa: B018


def test_load_encoder_gives_a_ready_module():
  encoder = inp.load_encoder("demo_vit_tiny_14")
  assert isinstance(encoder, vit.VisionTransformer)
  images = inp.normalise(np.zeros((2, 28, 42, 3), np.uint8))
  features = encoder.target_features(images)
  assert [f.shape for f in features] == [(2, 6, 192)] * 8
  assert np.isfinite(np.asarray(features[-1])).all()


def test_load_encoder_names_what_is_wrong():
  with pytest.raises(ValueError, match="Did you mean 'demo_vit_tiny_14'"):
    inp.load_encoder("demo_vit_tiny")
  with pytest.raises(FileNotFoundError, match="`encoder_weights` names no.npz"):
    inp.load_encoder("demo_vit_tiny_14", "no.npz")


def test_create_model_has_the_loaded_encoder_and_its_own_seed():
  model = inp.create_model("demo_vit_tiny_14", seed=1)
  other = inp.create_model("demo_vit_tiny_14", seed=2)
  loaded = inp.load_encoder("demo_vit_tiny_14")
  token = np.asarray(loaded.cls_token[...])
  assert model.prototypes[...].devices() == {jax.devices()[0]}
  for each in (model, other):
    np.testing.assert_array_equal(each.encoder.cls_token[...], token)
  assert (model.prototypes[...] != other.prototypes[...]).any()


def test_library_errors_name_arguments_and_jobs_name_fields(config, tmp_path):
  with pytest.raises(ValueError, match="^`layout` is 'x'"):
    inp.read_layout("x", tmp_path)
  config.data.layout = "x"
  with pytest.raises(ValueError, match="^config.data.layout is 'x'"):
    inp.train_and_evaluate(config, tmp_path)
