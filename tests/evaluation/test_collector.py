"""Processes that each saw a part of the images give the metrics of one."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from inp_former_jax.data.records import Record
from inp_former_jax.evaluation import submission
from inp_former_jax.evaluation.category_results import category_results
from inp_former_jax.evaluation.collector import Collected, Collector
from inp_former_jax.evaluation.metrics import PixelHistograms
from inp_former_jax.inference.predict_step import Prediction
from inp_former_jax.inference.record_batches import Reading
from tests.evaluation.simulated_processes import simulate

SIZE = 16
KEPT = [0, 3, 9]


def record(index: int, category: str, label: int) -> Record:
  path = pathlib.Path(f"{index}.png")
  masks = (path,) if label and index % 4 else ()
  return Record(path, category, label, "dent" if label else "good", masks)


# One category of a single image, one whose end lies amid a batch.
CATEGORIES = ["a"] * 1 + ["b"] * 8 + ["c"] * 5
RECORDS = [record(i, c, i % 2) for i, c in enumerate(CATEGORIES)]
RANDOM = np.random.default_rng(0)
MASKS = np.zeros((len(RECORDS), SIZE, SIZE), bool)
MASKS[1::2, 3:7, 4:11] = True
MAPS = (0.2 + 0.1 * MASKS + 0.15 * RANDOM.random(MASKS.shape)).astype("f4")


def batches(process: int, count: int, each: int = 2):
  """This process's parts of the batches, as the loader deals records out."""
  total = -(-len(RECORDS) // (count * each)) * count * each
  own = np.arange(total)[process::count].reshape(-1, each)
  for index in own:
    valid = index < len(RECORDS)
    found = np.where(valid, index, 0)
    masks = valid & [not r.label or bool(r.masks) for r in records_of(found)]
    maps = MAPS[found] * valid[:, None, None]
    batch = {
      "index": np.where(valid, index, -1).astype(np.int32),
      "valid": valid,
      "has_mask": masks,
      "mask": MASKS[found] & masks[:, None, None],
    }
    yield (
      batch,
      Prediction(jnp.asarray(maps), jnp.asarray(maps.max(axis=(1, 2)))),
    )


def records_of(indices: np.ndarray) -> list[Record]:
  return [RECORDS[i] for i in indices]


def collect(process: int, count: int) -> Collected:
  collector = Collector(RECORDS, KEPT, map_size=SIZE, exact=False, max_fpr=0.3)
  for batch, prediction in batches(process, count):
    collector.add(batch, prediction)
  return collector.finish()


# With 9 processes, the last 4 of a batch have less than the others; with 16,
# two have no image at all.
@pytest.mark.parametrize("count", [2, 3, 9, 16])
def test_processes_give_the_metrics_of_one_bit_for_bit(monkeypatch, count):
  # Few bins, because a process of its own has more memory than a thread.
  monkeypatch.setattr(PixelHistograms.__init__, "__defaults__", (2**12,))
  one = collect(0, 1)
  assert set(one.pixels) == {"a", "b", "c"}
  assert 0.5 < one.pixels["b"].metrics["pixel_aupro"] < 1
  several = simulate(monkeypatch, count, lambda i: collect(i, count))
  pixels = {name: result.metrics for name, result in one.pixels.items()}
  expected = repr(category_results(RECORDS, one.scores, pixels))
  for found in several:
    np.testing.assert_array_equal(found.scores, one.scores)
    own = {name: result.metrics for name, result in found.pixels.items()}
    assert repr(category_results(RECORDS, found.scores, own)) == expected
    for maps in ("maps", "worst_maps"):
      theirs, ours = getattr(found, maps), getattr(one, maps)
      assert list(theirs) == list(ours)
      for index in ours:
        np.testing.assert_array_equal(theirs[index], ours[index])


def test_sorting_all_pixels_takes_one_process(monkeypatch):
  monkeypatch.setattr(jax, "process_count", lambda: 2)
  with pytest.raises(ValueError, match="`exact` is True; .* 2 processes"):
    Collector(RECORDS, KEPT, map_size=SIZE, exact=True, max_fpr=0.3)


@pytest.mark.parametrize("count", [1, 3, 16])
def test_first_process_writes_the_predictions_of_all(
  monkeypatch, tmp_path, capsys, count
):
  monkeypatch.setattr(
    submission,
    "predict_records",
    lambda model, records, reading: batches(model, count),
  )

  def work(process):
    # Each process has a folder of its own, as on hosts that share none.
    folder = tmp_path / str(process)
    submission.write_predictions(process, RECORDS, Reading(2), folder)
    return folder

  first, *others = simulate(monkeypatch, count, work)
  assert not any(folder.exists() for folder in others)
  lines = (first / "predictions" / "scores.csv").read_text().splitlines()
  assert len(lines) == 1 + len(RECORDS)
  for index, (record, line) in enumerate(zip(RECORDS, lines[1:], strict=True)):
    kind = "dent" if record.label else "good"
    folder = first / "predictions" / record.category / kind
    with Image.open(folder / f"{index}.tiff") as image:
      np.testing.assert_array_equal(np.asarray(image), MAPS[index])
    assert line.endswith(f",{index}.png,{MAPS[index].max():.6f}")
  assert capsys.readouterr().out.count("unlabelled images") == 1
