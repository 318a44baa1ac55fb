"""The qualitative grid: chooses test images, and draws them with their maps."""

import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from inp_former_jax.data import transforms
from inp_former_jax.data.masks import load_mask
from inp_former_jax.data.records import DEFECTIVE, NORMAL, Record
from inp_former_jax.evaluation.figures import (
  QualitativeSample,
  save_qualitative_grid,
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
    record, size = result.records[index], len(anomaly_map)
    mask = np.zeros((size, size), bool)
    if record.label:
      mask = None
    if record.masks:
      mask = load_mask(
        record.masks, preprocessing, size, values=record.mask_values
      )
    samples.append(
      QualitativeSample(
        image=transforms.load_image(record.image, preprocessing),
        mask=_upscale(mask, preprocessing.crop),
        anomaly_map=anomaly_map,
        title=f"{record.category} / {record.defect}",
        score=float(scores[index]),
      )
    )
  save_qualitative_grid(
    path,
    samples,
    vmin=scale.vmin,
    vmax=scale.vmax,
    title=f"After {result.step} steps",
  )


def _upscale(
  mask: np.ndarray | None, size: tuple[int, int]
) -> np.ndarray | None:
  """Resizes an evaluation mask to the image's size, by nearest neighbour."""
  if mask is None:
    return None
  rows, columns = (np.arange(s) * len(mask) // s for s in size)
  return mask[np.ix_(rows, columns)]
