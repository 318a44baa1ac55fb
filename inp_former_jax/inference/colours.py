"""The one colour scale of a model's anomaly maps."""

import dataclasses
from collections.abc import Iterable

import numpy as np

NORMAL_SHARE = 0.6  # share of the scale that the peaks of good parts may take


@dataclasses.dataclass(frozen=True)
class ColourScale:
  """The range of scores that the colours span, one per model.

  Attributes:
    vmin: Score of the coldest colour.
    vmax: Score of the hottest colour.
  """

  vmin: float
  vmax: float


def colour_scale(
  normal_maps: Iterable[np.ndarray], other_maps: Iterable[np.ndarray] = ()
) -> ColourScale:
  """Chooses the one colour scale for all maps of a model.

  The scale starts at the median score of normal pixels, so that the
  background is the coldest colour. It ends at the 90 % quantile of the peaks
  of the other maps, so that most defects come close to the hottest colour and
  a few extreme ones do not fade the rest. It is never so short that the peaks
  of normal images (their 95 % quantile) exceed 60 % of it: if a model separates
  them badly, defects look pale, but good parts do not look hot.

  Args:
    normal_maps: Anomaly maps (h, w) of normal images, of any sizes.
    other_maps: Anomaly maps (h, w) of defective or unlabelled images.

  Returns:
    The scale, with vmin < vmax.

  Raises:
    ValueError: If there is no normal map, or if a score is not finite.
  """
  normal_peaks, normal_pixels = [], []
  for normal_map in normal_maps:
    normal_peaks.append(np.max(normal_map))
    # Every fourth row and column suffices for the median and saves memory.
    normal_pixels.append(np.asarray(normal_map)[::4, ::4].ravel())
  if not normal_peaks:
    raise ValueError("A colour scale needs at least one normal image's map.")
  other_peaks = [np.max(other_map) for other_map in other_maps]
  vmin = np.median(np.concatenate(normal_pixels).astype(np.float64))
  vmax = vmin + (np.quantile(normal_peaks, 0.95) - vmin) / NORMAL_SHARE
  if other_peaks:
    vmax = max(vmax, np.quantile(other_peaks, 0.9))
  if not np.isfinite([vmin, vmax, *normal_peaks, *other_peaks]).all():
    raise ValueError("Anomaly maps hold scores that are not finite.")
  return ColourScale(float(vmin), float(max(vmax, vmin + 1e-6)))
