"""Image and pixel metrics of anomaly detection: exact, and streaming.

Every function returns named metrics, as fractions in [0, 1]:

* `image_metrics`: `image_auroc`, `image_ap`, `image_f1max`;
* `exact_pixel_metrics` and `PixelHistograms.metrics`: `pixel_auroc`,
  `pixel_ap`, `pixel_f1max`, `pixel_aupro`.

A metric that is undefined (only one class is present) is nan.

AUPRO is an ordinary ROC curve under a weighting (the idea is ADEval's,
https://pypi.org/project/ADEval): let every defective pixel weigh 1 / area of
its connected region. The weighted true positive rate is then the mean over
regions of the fraction that was found, which is the per-region overlap of
Bergmann et al., https://arxiv.org/abs/1911.02357. So one sort gives the curve
at all thresholds, and three histograms give all metrics.
"""

import dataclasses
from typing import Self

import numpy as np
import scipy.ndimage
import sklearn.metrics

MAX_FPR = 0.3  # false positive rate at which AUPRO is cut
MAX_SCORE = 2.0  # maps are means of 1 - cosine, so they lie in [0, 2]
SCORE_TOLERANCE = 1e-3  # rounding of interpolation and blur, clipped silently
NUM_BINS = 2**20
REGION_UNIT = 2**40  # fixed-point weight of one whole region

# 8-connectivity inside an image, and none between the images of a batch.
_EIGHT_CONNECTED = np.zeros((3, 3, 3), bool)
_EIGHT_CONNECTED[1] = True


def image_metrics(labels: np.ndarray, scores: np.ndarray) -> dict[str, float]:
  """Computes the image-level metrics by sorting.

  Args:
    labels: (n,), nonzero or True for a defective image.
    scores: (n,) image scores, higher is more anomalous.

  Returns:
    `image_auroc`, `image_ap`, `image_f1max`; nan where only one class is
    present.

  Raises:
    ValueError: on different shapes, or scores that are not finite.
  """
  labels, scores = _checked(labels, scores, ndim=1)
  return {
    f"image_{name}": value
    for name, value in _ranking_metrics(labels, scores).items()
  }


def exact_pixel_metrics(
  maps: np.ndarray, masks: np.ndarray, *, max_fpr: float = MAX_FPR
) -> dict[str, float]:
  """Computes the pixel metrics by sorting, at all thresholds.

  Args:
    maps: (n, H, W) anomaly maps of any range, higher is more anomalous.
    masks: (n, H, W), nonzero or True for a defective pixel.
    max_fpr: AUPRO's limit of the false positive rate, in (0, 1].

  Returns:
    `pixel_auroc`, `pixel_ap`, `pixel_f1max`, `pixel_aupro`; nan where no
    pixel is defective, or none is normal.

  Raises:
    ValueError: on different shapes, or maps that are not finite.
  """
  masks, maps = _checked(masks, maps, ndim=3)
  values = _ranking_metrics(masks.ravel(), maps.ravel())
  values["aupro"] = aupro(maps, masks, max_fpr=max_fpr)
  return {f"pixel_{name}": value for name, value in values.items()}


def aupro(
  maps: np.ndarray,
  masks: np.ndarray,
  *,
  max_fpr: float = MAX_FPR,
  num_thresholds: int | None = None,
) -> float:
  """Computes the area under the per-region overlap curve.

  The curve is the per-region overlap, averaged over the connected regions of
  all images, against the false positive rate over all normal pixels. It
  starts at (0, 0), is interpolated linearly at exactly `max_fpr`, and its area
  up to there is divided by `max_fpr`.

  Args:
    maps: (n, H, W) anomaly maps, higher is more anomalous.
    masks: (n, H, W), nonzero or True for a defective pixel; regions are
      8-connected.
    max_fpr: the limit of the false positive rate, in (0, 1].
    num_thresholds: None evaluates every threshold, which is the exact value.
      A number evaluates that many equidistant ones from the smallest score
      up to, not including, the largest one: 5,000 err by some 1e-6, the 200
      of much published code by some 1e-4. Such code often also drops the
      curve's last piece and rescales the rest, instead of interpolating: on
      the original's 200 thresholds that loses another 5e-3.

  Returns:
    The area in [0, 1], or nan if no pixel is defective or none is normal.

  Raises:
    ValueError: on different shapes, or maps that are not finite.
  """
  masks, maps = _checked(masks, maps, ndim=3)
  weights = np.where(masks, 1 / np.maximum(_region_areas(masks), 1), 1.0)
  scores = maps.ravel()
  if num_thresholds is not None and scores.size:
    low, high = float(scores.min()), float(scores.max())
    thresholds = np.linspace(low, high, num_thresholds, endpoint=False)
    # The number of thresholds that a score exceeds takes its place.
    scores = np.searchsorted(thresholds, scores, side="left")
  return _area_to_fpr(masks.ravel(), scores, weights.ravel(), max_fpr)


@dataclasses.dataclass(eq=False)
class PixelHistograms:
  """All that the pixel metrics need of any number of maps, in fixed memory.

  Three histograms of scores over one uniform grid of `num_bins` on [0, 2].
  They hold integers only, so that adding them over batches, devices and hosts
  gives the same bits in any order.

  What happens within a bin is lost, most where scores are crowded. With the
  default, 2**20 bins of 2e-6, and maps within [0.02, 0.4], AUROC, AP and AUPRO
  stand within 2e-6 of sorting. F1max, a maximum over single pixels, was
  missed by up to a third of what one defective pixel is worth: by less than
  1e-5 from some 30,000 defective pixels on. With 2**18 bins F1max errs about
  twice as much, the others hardly more. A power of two makes
  `score * num_bins / 2` exact in float32, so that every machine picks the same
  bin. The default takes 24 MiB: evaluating one category after another needs no
  more; 30 categories at once take 720 MiB, and 180 MiB with `num_bins=2**18`.

  Attributes:
    num_bins: number of bins on [0, 2].
    normal: (num_bins,) int64, count of normal pixels.
    defective: (num_bins,) int64, count of defective pixels.
    regions: (num_bins,) int64, defective pixels weighted by 1 / area of their
      8-connected region, in units of 2**-40.
  """

  num_bins: int = NUM_BINS
  normal: np.ndarray = dataclasses.field(init=False, repr=False)
  defective: np.ndarray = dataclasses.field(init=False, repr=False)
  regions: np.ndarray = dataclasses.field(init=False, repr=False)

  def __post_init__(self):
    """Starts with empty histograms."""
    self.normal, self.defective, self.regions = np.zeros(
      (3, self.num_bins), np.int64
    )

  def add(self, maps: np.ndarray, masks: np.ndarray) -> None:
    """Counts the pixels of a batch.

    Args:
      maps: (n, H, W) anomaly maps in [0, 2]; whole images, because regions
        are found inside each.
      masks: (n, H, W), nonzero or True for a defective pixel.

    Raises:
      ValueError: on different shapes, on scores that are not finite, or that
        leave [0, 2] by more than rounding; nothing is counted then.
    """
    masks, maps = _checked(masks, maps, ndim=3)
    bins = self._bins(maps)
    self.normal += np.bincount(bins[~masks], minlength=self.num_bins)
    areas = _region_areas(masks)[masks]
    bins = bins[masks]
    np.add.at(self.defective, bins, 1)
    np.add.at(self.regions, bins, np.rint(REGION_UNIT / areas).astype(np.int64))

  def _bins(self, maps: np.ndarray) -> np.ndarray:
    if maps.size:
      low, high = maps.min(), maps.max()
      if low < -SCORE_TOLERANCE or high > MAX_SCORE + SCORE_TOLERANCE:
        raise ValueError(
          f"Anomaly maps span [{low:.4g}, {high:.4g}], expected [0, 2] (means"
          " of 1 - cosine). Use exact_pixel_metrics for maps of other ranges."
        )
    bins = (maps * (self.num_bins / MAX_SCORE)).astype(np.int64)
    return np.clip(bins, 0, self.num_bins - 1)

  def __add__(self, other: "PixelHistograms") -> "PixelHistograms":
    """Merges two histograms into a new one."""
    if self.num_bins != other.num_bins:
      raise ValueError(
        f"Histograms of {self.num_bins} and {other.num_bins} bins do not add."
      )
    return self.from_array(self.to_array() + other.to_array())

  def to_array(self) -> np.ndarray:
    """Returns the histograms as one (3, num_bins) int64 array, to be summed.

    JAX without x64 cuts int64 to 32 bits: hosts send bytes, see
    `sharding.gather_processes`.
    """
    return np.stack([self.normal, self.defective, self.regions])

  @classmethod
  def from_array(cls, array: np.ndarray) -> Self:
    """Rebuilds histograms from `to_array()`, or from a sum of such arrays."""
    if array.ndim != 2 or len(array) != 3 or array.dtype != np.int64:
      raise ValueError(
        f"Expected (3, num_bins) int64, found {array.shape} {array.dtype}."
      )
    histograms = cls(array.shape[1])
    histograms.normal, histograms.defective, histograms.regions = array.copy()
    return histograms

  def metrics(self, max_fpr: float = MAX_FPR) -> dict[str, float]:
    """Computes the metrics named as in `exact_pixel_metrics`.

    Args:
      max_fpr: AUPRO's limit of the false positive rate, in (0, 1].

    Returns:
      `pixel_auroc`, `pixel_ap`, `pixel_f1max`, `pixel_aupro`; nan where no
      pixel is defective, or none is normal.
    """
    (normal,), (defective,) = self.normal.nonzero(), self.defective.nonzero()
    labels = np.repeat([False, True], [normal.size, defective.size])
    bins = np.concatenate([normal, defective])

    def weighted(counts: np.ndarray) -> np.ndarray:
      weights = np.concatenate([self.normal[normal], counts[defective]])
      return weights.astype(np.float64)

    values = _ranking_metrics(labels, bins, weighted(self.defective))
    values["ap"] = self._average_precision()
    values["aupro"] = _area_to_fpr(
      labels, bins, weighted(self.regions), max_fpr
    )
    return {f"pixel_{name}": value for name, value in values.items()}

  def _average_precision(self) -> float:
    """AP with the defects of a bin at the middle of its pixels.

    Treated as ties they would all take the precision at the bin's end, which
    is too low by an error linear in the width of the bins.
    """
    defective, normal = self.defective[::-1], self.normal[::-1]
    if not defective.any() or not normal.any():
      return float("nan")
    (bins,) = defective.nonzero()
    true_positives = (defective.cumsum() - (defective - 1) / 2)[bins]
    false_positives = (normal.cumsum() - normal / 2)[bins]
    precision = true_positives / (true_positives + false_positives)
    return float(np.average(precision, weights=defective[bins]))


def _ranking_metrics(
  labels: np.ndarray, scores: np.ndarray, weights: np.ndarray | None = None
) -> dict[str, float]:
  """AUROC, AP and F1max of (n,) labels and scores, optionally weighted."""
  if labels.all() or not labels.any():
    return dict.fromkeys(("auroc", "ap", "f1max"), float("nan"))
  precision, recall, _ = sklearn.metrics.precision_recall_curve(
    labels, scores, sample_weight=weights
  )
  # Precision and recall are both 0 above the best-scored defect: F1 is 0.
  total = np.maximum(precision + recall, np.finfo(np.float64).tiny)
  auroc = sklearn.metrics.roc_auc_score(labels, scores, sample_weight=weights)
  return {
    "auroc": float(auroc),
    "ap": float(-np.sum(np.diff(recall) * precision[:-1])),
    "f1max": float(np.max(2 * precision * recall / total)),
  }


def _area_to_fpr(
  labels: np.ndarray, scores: np.ndarray, weights: np.ndarray, max_fpr: float
) -> float:
  """Area under a weighted ROC curve up to `max_fpr`, divided by `max_fpr`."""
  if not 0 < max_fpr <= 1:
    raise ValueError(f"max_fpr is {max_fpr}, expected within (0, 1].")
  if labels.all() or not labels.any():
    return float("nan")
  fpr, overlap, _ = sklearn.metrics.roc_curve(
    labels, scores, sample_weight=weights, drop_intermediate=False
  )
  end = np.searchsorted(fpr, max_fpr, side="right")
  last = np.interp(max_fpr, fpr, overlap)
  area = np.trapezoid(
    np.append(overlap[:end], last), np.append(fpr[:end], max_fpr)
  )
  return float(area / max_fpr)


def _region_areas(masks: np.ndarray) -> np.ndarray:
  """Area in pixels of the region each pixel of (n, H, W) is in, else 0."""
  regions, _ = scipy.ndimage.label(masks, structure=_EIGHT_CONNECTED)
  areas = np.bincount(regions.ravel(), minlength=1)
  areas[0] = 0
  return areas[regions]


def _checked(
  labels: np.ndarray, scores: np.ndarray, *, ndim: int
) -> tuple[np.ndarray, np.ndarray]:
  """Returns labels as bool and scores as float32 or wider, checked."""
  labels, scores = np.asarray(labels), np.asarray(scores)
  if labels.shape != scores.shape or scores.ndim != ndim:
    raise ValueError(
      f"Labels or masks have shape {labels.shape} and scores or maps"
      f" {scores.shape}, expected the same shape of {ndim} dimensions."
    )
  if not np.isfinite(scores).all():
    raise ValueError(
      f"{np.count_nonzero(~np.isfinite(scores))} of {scores.size} anomaly"
      " scores are not finite (nan or inf), so metrics have no meaning. Look"
      " for a diverged training or damaged weights."
    )
  wide = np.promote_types(scores.dtype, np.float32)
  return labels.astype(bool), scores.astype(wide, copy=False)
