"""Writes maps and scores of unlabelled images, as files to submit.

The private test sets of MVTec AD 2 have such images. Their authors compute the
metrics from the maps, which are TIFF files with the names of the images.
"""

import csv
import pathlib
from collections.abc import Iterator, Sequence

import jax
import numpy as np
from PIL import Image

from inp_former_jax import sharding
from inp_former_jax.atomic import replacing
from inp_former_jax.data.errors import DataError
from inp_former_jax.data.names import path_within
from inp_former_jax.data.records import Record
from inp_former_jax.inference.predict_step import Prediction
from inp_former_jax.inference.record_batches import Reading, predict_records
from inp_former_jax.inference.trained import TrainedModel
from inp_former_jax.processes import exchange
from inp_former_jax.terminal import escaped, printable

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
    workdir: Folder that gets `predictions/`, which the first process writes.

  Raises:
    DataError: If a file cannot be read, or if two images would have the same
      map; the error names the files.
  """
  if not records:
    return
  paths = _map_paths(workdir, records)
  scores = np.zeros(len(records), np.float32)
  for batch, prediction in predict_records(model, records, reading):
    for index, score, anomaly_map in _gathered(batch["index"], prediction):
      scores[index] = score
      if jax.process_index() == 0:
        with replacing(paths[index]) as path:
          Image.fromarray(anomaly_map).save(path)
  if jax.process_index() != 0:
    return
  with replacing(workdir / FOLDER / "scores.csv") as path:
    _write_scores(path, records, scores)
  print(escaped(f"{len(records)} unlabelled images: {workdir / FOLDER}"))


def _map_paths(
  workdir: pathlib.Path, records: Sequence[Record]
) -> list[pathlib.Path]:
  """Returns where the map of each image is written, before any is made."""
  paths, owners = [], {}
  for record in records:
    # Not one by one: the category may begin with its source and a slash.
    names = (record.category, record.defect, f"{record.image.stem}.tiff")
    path = path_within(workdir / FOLDER, *names)
    other = owners.setdefault(path, record.image)
    if other is not record.image:
      raise DataError(
        f"The maps of {printable(other)} and {printable(record.image)} would "
        f"both be {path}: their names differ only in the extension or the "
        "folder. Rename one of them."
      )
    paths.append(path)
  return paths


def _gathered(
  indices: np.ndarray, prediction: Prediction
) -> Iterator[tuple[int, float, np.ndarray]]:
  """Yields record, score and map of every image of a batch, on all processes.

  Maps come a row at a time, so that a process holds one of every other process,
  however large the batch is.

  Args:
    indices: The records of this process's rows, (n,), -1 for filling.
    prediction: The prediction of the global batch.
  """
  maps = sharding.to_local(prediction.anomaly_map).astype(np.float32)
  scores = sharding.to_local(prediction.image_score)
  # (processes, n)
  all_indices = exchange.gather_processes(indices)
  all_scores = exchange.gather_processes(scores)
  for row, own in enumerate(maps):
    for process, anomaly_map in enumerate(exchange.gather_processes(own)):
      index = int(all_indices[process, row])
      if index >= 0:
        yield index, float(all_scores[process, row]), anomaly_map


def _write_scores(
  path: pathlib.Path, records: Sequence[Record], scores: np.ndarray
) -> None:
  with open(path, "w", newline="", encoding="utf-8") as file:
    writer = csv.writer(file)
    writer.writerow(["category", "kind", "image", "score"])
    for record, score in zip(records, scores, strict=True):
      row = [record.category, record.defect, record.image.name]
      writer.writerow([*row, f"{score:.6f}"])
