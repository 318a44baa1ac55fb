"""Parity with the original implementation, by `weights_conversion.verify`."""

import os
import pathlib
import shutil

import numpy as np
import pytest

from tests.conftest import GOLDENS
from weights_conversion import verify
from weights_conversion.verification import training_run
from weights_conversion.verification.comparison import Comparison, Result

TRAINING = "tiny_reg4_training.npz"
WARM_UP = 3  # steps

# Largest tolerance that an array may be compared with. An array is compared in
# float32 at the highest precision (the training run in float64), relative
# ones to the largest value of the array.
TOLERANCES = {
  "tokens_in": 1e-5,
  "encoder_block_": 1e-5,
  "pos_embed_": 1e-5,
  "fused_tokens": 1e-4,
  "en_": 1e-4,
  "de_": 1e-4,
  "inps": 1e-4,
  "inp_distance": 1e-4,
  "inp_index": 0,
  "anomaly_map_": 1e-4,
  "image_score_": 1e-4,
  "zero_shot_map_": 1e-4,
  "soft_mining_loss": 1e-4,
  "coherence_loss": 1e-4,
  "total_loss": 1e-4,
  "grad/": 1e-4,
  "sm_": 1e-4,
  "losses": 1e-4,
  "coherence": 1e-4,
  "schedule": 1e-6,
  "learning_rates": 1e-6,
  "grad_norms": 1e-2,  # clipped afterwards, and noisier than the loss
  # Adam moves entries without gradient (the extractor's key bias: softmax
  # ignores it) by the sign of rounding noise.
  "final/": 1e-2,
  "param_": 1e-5,
  "pre_": 0,
  "mask_pre_": 0,
  "mask_eval": 0,
  "rotate_": 1e-5,
  "translate_": 1e-5,
  "hflip": 1e-5,
  "grey": 1e-5,
  "rot90_": 1e-5,
  "i_": 1e-6,
  "p_": 1e-6,
  "aupro_exact": 1e-6,
  "adeval_aupro": 1e-6,
  "streaming": 1e-5,
  "group": 1e-4,
}
COUNTS = {
  "tiny_reg4_forward.npz": 30,
  "tiny_noreg_forward.npz": 30,
  "tiny_reg4_losses.npz": 148,
  "tiny_noreg_losses.npz": 148,
  "tiny_reg4_training.npz": 145,
  "stable_adamw.npz": 36,
  "preprocessing.npz": 9,
  "few_shot_augmentations.npz": 21,
  "metrics.npz": 12,
}
# Metrics by bins or with another cut at FPR 0.3 that nothing here computes.
LEFT_OUT = {
  "metrics.npz": ("aupro_200_thresholds", "adeval_p_auroc", "adeval_p_ap"),
}


# The trainable part does not know of registers: without them its gradients are
# the same code over again.
SLOW = "tiny_noreg_losses.npz"


@pytest.fixture(scope="module")
def results(tmp_path_factory):
  """The reports of all files but the slow one."""
  folder = tmp_path_factory.mktemp("references")
  for path in GOLDENS.glob("*.npz"):
    if path.name != SLOW:
      (folder / path.name).symlink_to(path)
  return verify.verify(folder)


@pytest.fixture(scope="module")
def slow_results(tmp_path_factory):
  """The report of the slow file."""
  folder = tmp_path_factory.mktemp("slow")
  for kind in ("losses", "forward", "params"):
    name = SLOW.replace("losses", kind)
    (folder / name).symlink_to(GOLDENS / name)
  return verify.verify(folder)


def limit(name: str) -> float:
  key = name.split(": ", 1)[1]
  return max(
    (prefix for prefix in TOLERANCES if key.startswith(prefix)), key=len
  )


@pytest.mark.parametrize("name", [n for n in COUNTS if n != SLOW])
def test_reference_arrays_agree(results, name):
  check(results, name)


@pytest.mark.slow
def test_gradients_without_registers_agree(slow_results):
  check(slow_results, SLOW)


def check(results, name: str) -> None:
  assert len(results[name].results) == COUNTS[name]
  assert results[name].left_out == LEFT_OUT.get(name, ())
  for result in results[name].results:
    assert result.tolerance <= TOLERANCES[limit(result.name)], result
    assert result.difference <= result.tolerance, result


def test_real_encoder_agrees_with_the_original():
  encoder = os.environ.get("INP_FORMER_TEST_ENCODER")
  if not encoder:
    pytest.skip("INP_FORMER_TEST_ENCODER names no ViT-S/14 weights")
  images = os.environ.get("INP_FORMER_TEST_IMAGES")
  results = verify.verify(
    GOLDENS, pathlib.Path(encoder), images and pathlib.Path(images)
  )["real_vits14_features.npz"].results
  assert len(results) == (4 if images else 2)
  for result in results:
    assert result.tolerance <= 1e-4
    assert result.ok, result


# References that left the unmoved run are met by a neighbouring one.


def run_result(difference: float) -> Result:
  return Result("losses", difference, tolerance=1e-4, relative=True)


def test_the_first_run_within_tolerance_is_taken_and_marked():
  differences = {0: 7e-4, 1: 2e-3, 2: 4e-7}
  seeds = []

  def run(seed):
    seeds.append(seed)
    return [run_result(differences[seed])]

  (found,) = training_run.nearest_run(run)
  assert seeds == [0, 1, 2]
  assert found.ok and found.difference == 4e-7
  assert found.name == "losses (rounding 2)"


def test_a_run_that_agrees_at_once_is_neither_repeated_nor_marked():
  seeds = []

  def run(seed):
    seeds.append(seed)
    return [run_result(1e-6)]

  (found,) = training_run.nearest_run(run)
  assert seeds == [0] and found.name == "losses"


def test_no_number_of_tries_hides_what_is_off():
  (found,) = training_run.nearest_run(lambda seed: [run_result(1.0 + seed)])
  assert not found.ok and found.difference == 1.0


def test_the_float32_warm_up_gets_the_tries_of_the_whole_run(monkeypatch):
  compare = Comparison(GOLDENS / TRAINING)
  # A reference that started elsewhere stands for one that bifurcated.
  monkeypatch.setattr(training_run, "ROUNDING", 1e-2)
  run = training_run.ReferenceRun(compare, np.float32)
  monkeypatch.setitem(compare.reference, "warmup_iters", WARM_UP)
  for seed in (1, 3):
    history, _ = run.train(seed, WARM_UP)
    losses = np.array([float(h["loss"]) for h in history])
    monkeypatch.setitem(compare.reference, "losses", losses)
    (found,) = training_run.nearest_run(run.warmup_results)
    assert found.ok, found
    assert found.name.endswith(f"in float32 (rounding {seed})")


def corrupt(folder, name: str, key: str) -> None:
  arrays = dict(np.load(GOLDENS / name))
  arrays[key] = arrays[key] + np.float32(0.01)
  np.savez(folder / name, **arrays)


@pytest.mark.parametrize(
  "name, key",
  [
    ("stable_adamw.npz", "param_03_1"),
    ("metrics.npz", "p_ap"),
    ("preprocessing.npz", "pre_1"),
    ("few_shot_augmentations.npz", "rotate_-0.58905"),
  ],
)
def test_array_that_is_off_is_named(tmp_path, capsys, name, key):
  corrupt(tmp_path, name, key)
  assert verify.main([str(tmp_path)]) == 1
  output = capsys.readouterr().out.splitlines()
  off = [line for line in output if line.endswith("OFF")]
  assert len(off) == 1 and off[0].startswith(f"{name}: {key} ")
  assert output[-1].endswith("1 failures")


def test_sound_arrays_exit_with_zero(tmp_path, capsys):
  shutil.copy(GOLDENS / "stable_adamw.npz", tmp_path)
  (tmp_path / "other.npz").write_bytes(b"")
  assert verify.main([str(tmp_path)]) == 0
  output = capsys.readouterr().out
  assert "other.npz: not compared (not known)" in output
  assert output.endswith("36 arrays checked, 0 failures\n")


def test_shape_that_differs_is_off(tmp_path):
  arrays = dict(np.load(GOLDENS / "stable_adamw.npz"))
  arrays["param_00_0"] = arrays["param_00_0"][:-1]
  np.savez(tmp_path / "stable_adamw.npz", **arrays)
  results = verify.verify(tmp_path)["stable_adamw.npz"].results
  assert [r.ok for r in results if "param_00_0" in r.name] == [False]


def test_folder_without_arrays_fails(tmp_path, capsys):
  assert verify.main([str(tmp_path)]) == 1
  assert "no reference array" in capsys.readouterr().err


@pytest.mark.parametrize("missing", ["nowhere", "params"])
def test_missing_files_are_named(tmp_path, capsys, missing):
  folder = tmp_path / "nowhere"
  if missing == "params":
    folder = tmp_path
    shutil.copy(GOLDENS / "tiny_reg4_forward.npz", folder)
  assert verify.main([str(folder)]) == 1
  error = capsys.readouterr().err
  assert ("nowhere" if missing == "nowhere" else "_params.npz") in error


def test_truncated_file_is_named(tmp_path, capsys):
  whole = (GOLDENS / "metrics.npz").read_bytes()
  (tmp_path / "metrics.npz").write_bytes(whole[: len(whole) // 2])
  assert verify.main([str(tmp_path)]) == 1
  error = capsys.readouterr().err
  assert "metrics.npz" in error and "Traceback" not in error
