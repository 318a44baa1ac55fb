"""Encoders by name: cache, Hugging Face Hub, original files, import."""

import dataclasses
import hashlib
import importlib.util
import os
import pathlib
import subprocess
import sys

import huggingface_hub.constants
import jax
import numpy as np
import pytest
from flax import nnx
from huggingface_hub import file_download

from inp_former_jax.models import pretrained as command
from inp_former_jax.models import vit
from inp_former_jax.weights import (
  checksums,
  download,
  files,
  pretrained,
  sources,
)
from inp_former_jax.weights.encoders import ENCODERS, get_encoder
from tests.conftest import GOLDENS, ROOT
from tests.weights.file_server import serve_files, skip_waits

TINY = "dinov2reg_vit_nano_14"
SMALL = "dinov2reg_vit_small_14"
HUB_PATH = "/facebook/dinov2-with-registers-{}/resolve/{}/model.safetensors"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> pathlib.Path:
  """An empty cache of ours and of the Hub, and no way to the network."""
  folder = tmp_path / "encoders"
  monkeypatch.setenv("NO_PROXY", "127.0.0.1")
  monkeypatch.setenv("INP_FORMER_CACHE", str(folder))
  monkeypatch.setenv("HF_HUB_OFFLINE", "1")
  monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
  constants = huggingface_hub.constants  # reads the environment once
  monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
  monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
  serve_originals_from(monkeypatch, "http://127.0.0.1:1", SMALL)
  return folder


def serve_originals_from(monkeypatch, root: str, *names: str) -> None:
  """Moves the original files of encoders to another server."""
  for name in names:
    size = "n" if name == TINY else "s"
    path = f"dinov2_vit{size}14/dinov2_vit{size}14_reg4_pretrain.pth"
    moved = dataclasses.replace(ENCODERS[name], url=f"{root}/dinov2/{path}")
    monkeypatch.setitem(ENCODERS, name, moved)


@pytest.fixture
def server(monkeypatch):
  """Both sources on loopback; the tiny encoder counts as published."""
  with serve_files() as server:
    serve_originals_from(monkeypatch, server.root, SMALL, TINY)
    on_hub = "facebook/dinov2-with-registers-nano"
    published = dataclasses.replace(ENCODERS[TINY], hub_id=on_hub)
    monkeypatch.setitem(ENCODERS, TINY, published)
    yield server


@pytest.fixture
def hub(server, monkeypatch) -> None:
  """The Hugging Face Hub is the server on loopback."""
  constants = huggingface_hub.constants
  template = server.root + "/{repo_id}/resolve/{revision}/{filename}"
  monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
  monkeypatch.setattr(constants, "ENDPOINT", server.root)
  # Versions before 1.0 copy the template when they are first used.
  for module in (constants, file_download):
    monkeypatch.setattr(
      module, "HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False
    )


@pytest.fixture
def file(tmp_path) -> pathlib.Path:
  """Weights of a tiny encoder by facebookresearch's names."""
  path = tmp_path / "fetched.npz"
  arrays = files.read_arrays(GOLDENS / "tiny_reg4_params.npz")
  prefix = "encoder."
  encoder = {
    key.removeprefix(prefix): value
    for key, value in arrays.items()
    if key.startswith(prefix)
  }
  files.write_arrays(path, encoder)
  return path


@pytest.fixture(scope="module")
def abstract_state() -> nnx.State:
  spec = get_encoder(TINY)
  return nnx.state(
    nnx.eval_shape(
      lambda: vit.VisionTransformer(
        spec.variant, spec.num_registers, rngs=nnx.Rngs(0)
      )
    )
  )


def sha256(path: pathlib.Path) -> str:
  return hashlib.sha256(path.read_bytes()).hexdigest()


def run_command(*arguments: str, **environment: str):
  return subprocess.run(
    [sys.executable, "-m", "inp_former_jax.models.pretrained", *arguments],
    cwd=ROOT,
    env=os.environ | environment,
    capture_output=True,
    text=True,
    timeout=120,
  )


def assert_says_what_to_do(message: str, encoder: str, hub: str) -> None:
  url = get_encoder(encoder).url.partition("/dinov2_vit")[2]
  for words in (
    f"The weights of the encoder {encoder}",
    hub,
    url,
    f"inp_former_jax.models.pretrained import {encoder} FILE",
    "encoder_weights",
    "=FILE",
  ):
    assert words in message


@pytest.mark.parametrize("weights", ["", "original"])
def test_variant_without_published_weights_is_named(weights, abstract_state):
  with pytest.raises(FileNotFoundError, match="no published weights") as error:
    pretrained.load_weights(TINY, weights, abstract_state)
  assert TINY in str(error.value)
  assert "`encoder_weights`=FILE" in str(error.value)


def test_imported_file_is_loaded_by_name(file, cache, abstract_state, capsys):
  command.main(["import", TINY, str(file)])
  assert capsys.readouterr().out.strip() == str(cache / f"{TINY}.npz")
  assert {f.name for f in cache.iterdir()} == {
    f"{TINY}.npz",
    f"{TINY}.npz.json",
  }
  by_name = pretrained.load_weights(TINY, "", abstract_state)
  by_path = pretrained.load_weights(TINY, str(file), abstract_state)
  assert by_name.sha256 == by_path.sha256 == sha256(file)
  jax.tree.map(np.testing.assert_array_equal, by_name.state, by_path.state)
  command.main(["where", TINY])
  assert sha256(file) in capsys.readouterr().out


def test_file_of_another_encoder_is_not_imported(file, cache):
  with pytest.raises(SystemExit, match="register_tokens"):
    command.main(["import", "dinov2_vit_nano_14", str(file)])
  with pytest.raises(SystemExit, match="is not a file"):
    command.main(["import", TINY, str(file.parent / "nothing.npz")])
  with pytest.raises(SystemExit, match="Unknown encoder"):
    command.main(["import", "dinov2reg_vit_tniy_14", str(file)])
  assert not cache.exists()


def test_import_replaces_only_when_told(file, cache):
  cache.mkdir()
  (cache / f"{TINY}.pth").write_bytes(b"old")
  with pytest.raises(SystemExit, match="--replace"):
    command.main(["import", TINY, str(file)])
  command.main(["import", TINY, str(file), "--replace"])
  command.main(["import", TINY, str(file), "--replace"])
  assert {f.name for f in cache.iterdir()} == {
    f"{TINY}.npz",
    f"{TINY}.npz.json",
  }
  assert sources.find_cached(TINY).sha256 == sha256(file)


def test_changed_file_in_the_cache_is_refused(file, cache, abstract_state):
  pretrained.import_file(TINY, file)
  cached = cache / f"{TINY}.npz"
  cached.write_bytes(cached.read_bytes()[:-1])
  with pytest.raises(checksums.ChangedFileError, match=str(cached)):
    pretrained.load_weights(TINY, "", abstract_state)


def test_damaged_file_in_the_cache_is_named(file, cache, abstract_state):
  """A file put there by hand, without a record."""
  cache.mkdir()
  cached = cache / f"{TINY}.npz"
  cached.write_bytes(file.read_bytes()[:-1000])
  with pytest.raises(ValueError, match="delete it to have it fetched") as error:
    pretrained.load_weights(TINY, "", abstract_state)
  assert str(cached) in str(error.value)


def test_missing_file_is_named(abstract_state):
  with pytest.raises(FileNotFoundError, match="no/such.npz"):
    pretrained.load_weights(TINY, "no/such.npz", abstract_state)


def test_random_weights_read_nothing(abstract_state):
  weights = pretrained.load_weights(TINY, "random", abstract_state)
  assert weights == pretrained.EncoderWeights(None, "random")


def test_offline_without_a_file_says_what_to_do():
  run = run_command("fetch", SMALL)
  assert run.returncode == 1
  assert run.stderr.startswith("error: The weights of the encoder")
  assert "HF_HUB_OFFLINE" in run.stderr
  assert "Traceback" not in run.stderr
  hub = "https://huggingface.co" + HUB_PATH.format("small", "main")
  assert_says_what_to_do(run.stderr, SMALL, hub)


def test_file_missing_on_the_hub_says_what_to_do(server, hub):
  with pytest.raises(download.DownloadError) as error:
    sources.find_or_fetch(SMALL)
  assert "404" in str(error.value)
  url = server.root + HUB_PATH.format("small", "main")
  assert_says_what_to_do(str(error.value), SMALL, url)


def test_command_honours_endpoint_and_cache_of_the_hub(server, tmp_path):
  server.files[HUB_PATH.format("small", "main")] = b"weights"
  server.files[HUB_PATH.format("small", COMMIT)] = b"weights"
  server.headers["X-Repo-Commit"] = COMMIT
  environment = {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": server.root}
  run = run_command("fetch", SMALL, **environment)
  assert run.returncode == 0, run.stderr
  path = pathlib.Path(run.stdout.strip())
  assert (tmp_path / "hub") in path.parents
  assert path.read_bytes() == b"weights"
  assert sources.find_cached(SMALL).path == path


def test_where_names_both_addresses(cache, capsys):
  command.main(["where", SMALL])
  output = capsys.readouterr().out
  assert str(cache) in output
  assert get_encoder(SMALL).url in output
  assert HUB_PATH.format("small", "main") in output


def test_a_source_that_an_encoder_lacks_is_named(monkeypatch, capsys):
  no_original = dataclasses.replace(ENCODERS[SMALL], url="")
  monkeypatch.setitem(ENCODERS, SMALL, no_original)
  with pytest.raises(FileNotFoundError, match="'original'.*huggingface"):
    sources.fetch(SMALL, "original")
  command.main(["where", SMALL])
  assert "original" not in capsys.readouterr().out


def test_a_known_checksum_of_the_original_is_required(server, monkeypatch):
  pytest.importorskip("torch")
  known = dataclasses.replace(ENCODERS[SMALL], url_sha256="0" * 64)
  monkeypatch.setitem(ENCODERS, SMALL, known)
  monkeypatch.setattr("time.sleep", lambda seconds: None)
  path = "/dinov2/dinov2_vits14/dinov2_vits14_reg4_pretrain.pth"
  server.files[path] = b"weights"
  with pytest.raises(download.DownloadError, match=SMALL):
    sources.fetch(SMALL, "original")
  assert sources.find_cached(SMALL) is None


def test_unreachable_original_says_what_to_do(monkeypatch):
  pytest.importorskip("torch")
  skip_waits(monkeypatch)
  with pytest.raises(
    download.DownloadError, match="cannot be reached"
  ) as error:
    sources.fetch(SMALL, "original")
  assert_says_what_to_do(
    str(error.value), SMALL, HUB_PATH.format("small", "main")
  )


def test_original_file_is_downloaded_once(
  server, file, cache, abstract_state, tmp_path
):
  pytest.importorskip("torch")
  files.write_arrays(tmp_path / "original.pth", files.read_arrays(file))
  path = "/dinov2/dinov2_vitn14/dinov2_vitn14_reg4_pretrain.pth"
  server.files[path] = (tmp_path / "original.pth").read_bytes()
  for _ in range(2):
    weights = pretrained.load_weights(TINY, "original", abstract_state)
    assert weights.sha256 == sha256(tmp_path / "original.pth")
  assert len(server.gets) == 1
  assert sources.find_cached(TINY).path == cache / f"{TINY}.pth"
  expected = pretrained.load_weights(TINY, str(file), abstract_state)
  jax.tree.map(np.testing.assert_array_equal, weights.state, expected.state)


def test_original_file_without_torch_is_not_downloaded(server, monkeypatch):
  monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
  with pytest.raises(ImportError, match="convert"):
    sources.fetch(SMALL, "original")
  assert not server.gets


def test_hub_file_is_downloaded_once_and_verified(
  server, hub, file, abstract_state, tmp_path
):
  files.write_arrays(tmp_path / "hub.safetensors", files.read_arrays(file))
  content = (tmp_path / "hub.safetensors").read_bytes()
  for revision in ("main", COMMIT):
    server.files[HUB_PATH.format("nano", revision)] = content
  server.headers["X-Repo-Commit"] = COMMIT
  for _ in range(2):
    weights = pretrained.load_weights(TINY, "", abstract_state)
    assert weights.sha256 == hashlib.sha256(content).hexdigest()
  assert len(server.gets) == 1
  found = sources.find_cached(TINY)
  assert (tmp_path / "hub") in found.path.parents
  blob = found.path.resolve()
  blob.write_bytes(content[:-1] + b"?")
  with pytest.raises(checksums.ChangedFileError, match=str(blob)):
    pretrained.load_weights(TINY, "", abstract_state)


def test_hub_file_without_a_link_is_noted_in_our_cache(tmp_path, cache):
  folder = tmp_path / "hub" / "models--facebook--dinov2-with-registers-small"
  snapshot = folder / "snapshots" / COMMIT
  snapshot.mkdir(parents=True)
  (folder / "refs").mkdir()
  (folder / "refs" / "main").write_text(COMMIT)
  (snapshot / "model.safetensors").write_bytes(b"weights")
  found = sources.find_cached(SMALL)
  assert found.sha256 == hashlib.sha256(b"weights").hexdigest()
  assert list(snapshot.iterdir()) == [found.path]
  found.path.write_bytes(b"weighty")
  with pytest.raises(checksums.ChangedFileError, match="model.safetensors"):
    sources.find_cached(SMALL)
