"""The comparison of an exported model with its checkpoint."""

import dataclasses
import pathlib

import numpy as np
import pytest

from inp_former_jax.data.errors import DataError
from inp_former_jax.data.records import Record
from inp_former_jax.exporting import answers, check
from inp_former_jax.exporting.check import Tolerance
from inp_former_jax.exporting.errors import DifferenceError
from inp_former_jax.exporting.samples import (
  find_images,
  load_samples,
  spread,
  with_records,
)
from tests.exporting.conftest import SIZES, thresholds_within

ANY = Tolerance(np.inf, np.inf)


def records_of(labels: str) -> tuple[Record, ...]:
  """Records by letter: capitals are defective, the letter is the category."""
  return tuple(
    Record(pathlib.Path(f"{i}.png"), c.lower(), int(c.isupper()), "good")
    for i, c in enumerate(labels)
  )


def compare(model, found, changed=None, thresholds=None) -> check.Comparison:
  """Compares a model with itself, after a change of its answers."""

  def run(images):
    result = answers.answers(model.predict(images), thresholds)
    result = {name: np.array(value) for name, value in result.items()}
    return changed(result) if changed else result

  return check.compare(model, "itself", run, found, thresholds)


def test_a_model_equals_itself(model, samples):
  thresholds = thresholds_within(model, samples.images)
  found = compare(model, samples, thresholds=thresholds)
  assert (found.images, found.decisions, found.mask_pixels) == (7, 0, 0)
  assert found.score < 1e-6 and found.map < 1e-5
  assert found.rank_correlation == 1 and found.image_auroc is None
  check.require_close(found, Tolerance(1e-5, 1e-4))


def test_differences_are_counted(model, samples):
  thresholds = thresholds_within(model, samples.images)

  def changed(result):
    result["decision"] = ~result["decision"]
    result["mask"][:, :32] ^= True
    result["score"] += np.float32(0.25)
    return result

  found = compare(model, samples, changed, thresholds)
  assert found.decisions == 7
  assert found.mask_pixels == pytest.approx(0.5)
  assert found.score == pytest.approx(0.25, abs=1e-5)
  assert "7 of 7 decisions, 50.00% of the masks' pixels" in str(found)


def test_auroc_is_the_mean_over_categories_with_both_labels(model, samples):
  labelled = dataclasses.replace(samples, records=records_of("aAaAbBc"))

  def reversed_scores(result):
    result["score"] = 2 - result["score"]
    return result

  found = compare(model, labelled, reversed_scores)
  assert found.image_auroc is not None
  assert found.exported_image_auroc == pytest.approx(1 - found.image_auroc)
  assert "image AUROC" in str(found)
  with pytest.raises(DifferenceError, match="orders the images differently"):
    check.require_close(found, ANY)


def test_scores_that_are_all_the_same_are_refused(model, samples):
  def constant(result):
    result["score"][:] = 1
    return result

  found = compare(model, samples, constant)
  assert found.rank_correlation == 0
  with pytest.raises(DifferenceError, match="`precision`"):
    check.require_close(found, ANY)


def test_few_images_have_no_order(model, samples):
  few = dataclasses.replace(samples, images=samples.images[:4])
  found = compare(model, few)
  assert found.rank_correlation is None
  check.require_close(found, ANY)


def test_images_are_spread_over_all():
  assert spread(range(10), 4) == [0, 3, 6, 9]
  assert spread(range(3), 4) == [0, 1, 2]
  assert spread(range(3), 0) == [0, 1, 2]


def test_images_are_found_in_folders(image_files, tmp_path):
  folder = image_files[0].parent
  assert find_images([folder]) == image_files
  assert find_images([image_files[3]]) == image_files[3:4]
  with pytest.raises(DataError, match="holds no image"):
    find_images([tmp_path])
  with pytest.raises(DataError, match="does not exist"):
    find_images([tmp_path / "missing"])


def test_labels_are_those_of_the_run_if_all_are_known(image_files):
  records = [Record(file, "a", 0, "good") for file in image_files]
  assert with_records(image_files, records) == records
  assert with_records(image_files, records[1:]) == image_files
  found = load_samples(records[:2], SIZES)
  assert found.records == tuple(records[:2])
