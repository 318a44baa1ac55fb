"""The qualitative grid: chooses test images, and draws them with their maps."""

import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from inp_former_jax.data.records import DEFECTIVE, NORMAL, Record
from inp_former_jax.evaluation.qualitative_grid import (
  QualitativeSample,
  save_qualitative_grid,
)
from inp_former_jax.evaluation.record_display import (
  load_image_and_mask,
  short_name,
)
from inp_former_jax.evaluation.results import Evaluation
from inp_former_jax.inference.colours import ColourScale, colour_scale

COLOUR_SCALE_IMAGES = 100  # normal images, and as many defective ones


def grid_records(records: Sequence[Record], count: int) -> list[int]:
  """Chooses records for the qualitative grid, from all categories equally.

  Every category contributes a normal image, then one of each kind of defect in
  turn, until there are enough.

  Args:
    records: The test records.
    count: Largest number of records to choose.

  Returns:
    Indices of the chosen records, sorted by category, with the normal ones
    first within each category.
  """
  by_category: dict[str, list[int]] = {}
  for category in dict.fromkeys(r.category for r in records):
    kinds: dict[str, list[int]] = {}
    for i, record in enumerate(records):
      if record.category == category:
        kinds.setdefault(record.defect, []).append(i)
    # Normal images come before defects, and each kind keeps its order.
    kinds = dict(sorted(kinds.items(), key=lambda kind: kind[0] != "good"))
    by_category[category] = _in_turn(list(kinds.values()))
  chosen = _in_turn(list(by_category.values()))[:count]
  return sorted(
    chosen, key=lambda i: (records[i].category, records[i].label, i)
  )


def inp_records(records: Sequence[Record], count: int) -> list[int]:
  """Chooses records for the figure of the INPs: defects, of all categories.

  Args:
    records: The test records.
    count: Largest number of records to choose.

  Returns:
    Indices of the chosen records, as `grid_records` chooses them among the
    defective ones, or among the normal ones if there are no others.
  """
  defective = [i for i, r in enumerate(records) if r.label == DEFECTIVE]
  candidates = defective or list(range(len(records)))
  chosen = grid_records([records[i] for i in candidates], count)
  return [candidates[i] for i in chosen]


def _in_turn(lists: Sequence[Sequence[int]]) -> list[int]:
  """Returns the first item of every list, then the second items, and so on."""
  return [
    items[k]
    for k in range(max(map(len, lists), default=0))
    for items in lists
    if k < len(items)
  ]


def colour_scale_records(records: Sequence[Record]) -> list[int]:
  """Chooses the records whose maps decide the colour scale.

  Args:
    records: The test records.

  Returns:
    Indices of at most COLOUR_SCALE_IMAGES normal records and as many
    defective ones, evenly spaced.
  """
  return [*_every_kth(records, NORMAL), *_every_kth(records, DEFECTIVE)]


def _every_kth(records: Sequence[Record], label: int) -> list[int]:
  indices = [i for i, r in enumerate(records) if r.label == label]
  stride = -(-len(indices) // COLOUR_SCALE_IMAGES) or 1
  return indices[::stride]


def scale_of_maps(
  records: Sequence[Record], maps: Mapping[int, np.ndarray]
) -> ColourScale:
  """Chooses the colour scale from the maps of normal and defective images.

  Without normal images, defective ones take their place.

  Args:
    records: The test records.
    maps: Anomaly maps, (h, w), by index of their record.

  Returns:
    The colour scale.

  Raises:
    ValueError: If there are no maps, or if a score is not finite.
  """
  normal = [m for i, m in maps.items() if records[i].label == 0]
  defective = [m for i, m in maps.items() if records[i].label == 1]
  return colour_scale(normal or defective, defective)


def save_grid(path: pathlib.Path, result: Evaluation) -> None:
  """Saves the qualitative grid of an evaluation, on one colour scale.

  Args:
    path: The PNG file to write.
    result: The evaluation, whose `maps` decide which records are shown.
  """
  preprocessing, scale = result.preprocessing, result.scale
  scores = result.image_scores
  # Only merged results lack these fields, and those have no maps to show.
  assert preprocessing is not None
  assert scale is not None
  assert scores is not None
  samples = []
  for index, anomaly_map in result.maps.items():
    record = result.records[index]
    image, mask = load_image_and_mask(record, preprocessing, len(anomaly_map))
    samples.append(
      QualitativeSample(
        image=image,
        mask=mask,
        anomaly_map=anomaly_map,
        title=f"{record.category} / {record.defect}",
        score=float(scores[index]),
        name=short_name(record.image),
      )
    )
  save_qualitative_grid(
    path,
    samples,
    vmin=scale.vmin,
    vmax=scale.vmax,
    title=f"After {result.step} steps",
  )
