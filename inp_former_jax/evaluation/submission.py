"""Writes maps and scores of unlabelled images, as files to submit.

The private test sets of MVTec AD 2 have such images. Their authors compute the
metrics from the maps, which are TIFF files with the names of the images.
"""

import csv
import pathlib
from collections.abc import Sequence

import jax
import numpy as np
from PIL import Image

from inp_former_jax import sharding
from inp_former_jax.atomic import replacing
from inp_former_jax.data.records import Record
from inp_former_jax.inference.record_batches import Reading, predict_records
from inp_former_jax.inference.trained import TrainedModel
from inp_former_jax.path_within import path_within

FOLDER = "predictions"


def write_predictions(
  model: TrainedModel,
  records: Sequence[Record],
  reading: Reading,
  workdir: pathlib.Path,
) -> None:
  """Writes maps and scores of unlabelled images, if there are any.

  `predictions/scores.csv` has a line for every image, and
  `predictions/<category>/<kind>/NAME.tiff` holds the image's anomaly map, in
  float32 and at the model's `map_size`. All processes of the model's mesh must
  call this function.

  Args:
    model: The model that predicts them.
    records: The images, `Dataset.unlabelled`.
    reading: Settings for reading the records.
    workdir: Folder that gets `predictions/`; all processes must share it.

  Raises:
    DataError: If a file cannot be read; the error names the file.
    ValueError: If the name of a category or an image leads out of the folder.
  """
  if not records:
    return
  scores = np.zeros(len(records), np.float32)
  for batch, prediction in predict_records(model, records, reading):
    maps = sharding.to_local(prediction.anomaly_map)
    found = sharding.to_local(prediction.image_score)
    for row in np.flatnonzero(batch["valid"]):
      index = int(batch["index"][row])
      scores[index] = found[row]
      with replacing(_map_path(workdir, records[index])) as path:
        Image.fromarray(maps[row].astype(np.float32)).save(path)
  scores = sharding.sum_over_processes(scores)
  if jax.process_index() != 0:
    return
  with replacing(workdir / FOLDER / "scores.csv") as path:
    _write_scores(path, records, scores)
  print(f"{len(records)} unlabelled images: {workdir / FOLDER}")


def _map_path(workdir: pathlib.Path, record: Record) -> pathlib.Path:
  names = record.category, record.defect, f"{record.image.stem}.tiff"
  return path_within(workdir / FOLDER, *names)


def _write_scores(
  path: pathlib.Path, records: Sequence[Record], scores: np.ndarray
) -> None:
  with open(path, "w", newline="", encoding="utf-8") as file:
    writer = csv.writer(file)
    writer.writerow(["category", "kind", "image", "score"])
    for record, score in zip(records, scores, strict=True):
      row = [record.category, record.defect, record.image.name]
      writer.writerow([*row, f"{score:.6f}"])
