"""Image and pixel metrics of anomaly detection, exact and streaming.

Every function returns named metrics, which are fractions in [0, 1]:

* `image_metrics`: `image_auroc`, `image_ap`, `image_f1max`;
* `exact_pixel_metrics` and `PixelHistograms.metrics`: `pixel_auroc`,
  `pixel_ap`, `pixel_f1max`, `pixel_aupro`.

A metric that is undefined, because only one class is present, is nan.

AUPRO is the area under an ordinary ROC curve with weights (an idea of ADEval,
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
SCORE_TOLERANCE = 1e-3  # rounding by interpolation and blur, clipped silently
NUM_BINS = 2**20
REGION_UNIT = 2**40  # fixed-point weight of one whole region

# 8-connectivity within an image, and none between the images of a batch.
_EIGHT_CONNECTED = np.zeros((3, 3, 3), bool)
_EIGHT_CONNECTED[1] = True


def image_metrics(labels: np.ndarray, scores: np.ndarray) -> dict[str, float]:
  """Computes the image-level metrics by sorting.

  Args:
    labels: Labels of the images, (n,), nonzero or True for a defective image.
    scores: Image scores, (n,), higher for a more anomalous image.

  Returns:
    The metrics `image_auroc`, `image_ap` and `image_f1max`; nan if only one
    class is present.

  Raises:
    ValueError: If the shapes differ, or if a score is not finite.
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
    maps: Anomaly maps, (n, H, W), of any range, higher where more anomalous.
    masks: Ground truth, (n, H, W), nonzero or True for a defective pixel.
    max_fpr: False positive rate at which AUPRO is cut, in (0, 1].

  Returns:
    The metrics `pixel_auroc`, `pixel_ap`, `pixel_f1max` and `pixel_aupro`; nan
    if no pixel is defective, or none is normal.

  Raises:
    ValueError: If the shapes differ, or if a score is not finite.
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

  The curve shows the per-region overlap, averaged over the connected regions
  of all images, against the false positive rate over all normal pixels. It
  starts at (0, 0) and is interpolated linearly at exactly `max_fpr`; its area
  up to there is divided by `max_fpr`.

  Args:
    maps: Anomaly maps, (n, H, W), higher where more anomalous.
    masks: Ground truth, (n, H, W), nonzero or True for a defective pixel;
      regions are 8-connected.
    max_fpr: False positive rate at which the curve is cut, in (0, 1].
    num_thresholds: Number of thresholds, or None for every threshold, which
      gives the exact value. The thresholds are equidistant, from the smallest
      score up to the largest one, which is excluded. With 5,000 the error is
      about 1e-6, and with the 200 of much published code about 1e-4. Such code
      often also drops the curve's last piece and rescales the rest instead of
      interpolating, which loses another 5e-3 at the original's 200 thresholds.

  Returns:
    The area, in [0, 1]; nan if no pixel is defective, or none is normal.

  Raises:
    ValueError: If the shapes differ, or if a score is not finite.
  """
  masks, maps = _checked(masks, maps, ndim=3)
  weights = np.where(masks, 1 / np.maximum(_region_areas(masks), 1), 1.0)
  scores = maps.ravel()
  if num_thresholds is not None and scores.size:
    low, high = float(scores.min()), float(scores.max())
    thresholds = np.linspace(low, high, num_thresholds, endpoint=False)
    # A score is replaced by the number of thresholds that it exceeds.
    scores = np.searchsorted(thresholds, scores, side="left")
  return _area_to_fpr(masks.ravel(), scores, weights.ravel(), max_fpr)


@dataclasses.dataclass(eq=False)
class PixelHistograms:
  """Histograms that give the pixel metrics of any number of maps.

  Three histograms of scores, over a uniform grid of `num_bins` bins on [0, 2],
  take a fixed amount of memory. They hold only integers, so that adding them
  over batches, devices and hosts gives the same bits in any order.

  The order of scores within a bin is lost, which matters most where scores are
  crowded. With the default of 2**20 bins, each 2e-6 wide, and maps within
  [0.02, 0.4], AUROC, AP and AUPRO are within 2e-6 of the exact values. F1max,
  a maximum over single pixels, was off by up to a third of what one defective
  pixel contributes, which is less than 1e-5 from about 30,000 defective pixels
  on. With 2**18 bins the error of F1max is about twice as large, and those of
  the others hardly larger. A power of two makes `score * num_bins / 2` exact in
  float32, so that every machine picks the same bin. The default takes 24 MiB,
  which is enough to evaluate one category after another; 30 categories at once
  take 720 MiB, or 180 MiB with `num_bins=2**18`.

  Attributes:
    num_bins: Number of bins on [0, 2].
    normal: Number of normal pixels in each bin, (num_bins,) int64.
    defective: Number of defective pixels in each bin, (num_bins,) int64.
    regions: Sum over the defective pixels in each bin of 1 / area of their
      8-connected region, (num_bins,) int64, in units of 2**-40.
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
      maps: Anomaly maps, (n, H, W), in [0, 2]. They must be of whole images,
        because regions are found within each image.
      masks: Ground truth, (n, H, W), nonzero or True for a defective pixel.

    Raises:
      ValueError: If the shapes differ, or if a score is not finite or is
        outside [0, 2] by more than rounding. In that case, nothing is counted.
    """
    masks, maps = _checked(masks, maps, ndim=3)
    bins = self._bins(maps)
    self.normal += np.bincount(bins[~masks], minlength=self.num_bins)
    some = masks.any(axis=(1, 2))  # finding regions takes time, and most
    masks, bins = masks[some], bins[some]  # images of a test set have none
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
    """Adds the histograms of two instances into a new one.

    Raises:
      ValueError: If their numbers of bins differ.
    """
    if self.num_bins != other.num_bins:
      raise ValueError(
        f"Histograms of {self.num_bins} and {other.num_bins} bins cannot be "
        "added."
      )
    return self.from_array(self.to_array() + other.to_array())

  def to_array(self) -> np.ndarray:
    """Returns the histograms as one array, which can be summed over hosts.

    JAX without x64 truncates int64 to 32 bits; `exchange.sum_over_processes`
    sums it exactly all the same.

    Returns:
      The three histograms, (3, num_bins) int64.
    """
    return np.stack([self.normal, self.defective, self.regions])

  @classmethod
  def from_array(cls, array: np.ndarray) -> Self:
    """Rebuilds histograms from an array.

    Args:
      array: The result of `to_array()`, or a sum of such arrays.

    Returns:
      The histograms.

    Raises:
      ValueError: If the array is not (3, num_bins) int64.
    """
    if array.ndim != 2 or len(array) != 3 or array.dtype != np.int64:
      raise ValueError(
        f"Expected (3, num_bins) int64, found {array.shape} {array.dtype}."
      )
    histograms = cls(array.shape[1])
    histograms.normal, histograms.defective, histograms.regions = array.copy()
    return histograms

  def metrics(self, max_fpr: float = MAX_FPR) -> dict[str, float]:
    """Computes the pixel metrics of all pixels counted so far.

    Args:
      max_fpr: False positive rate at which AUPRO is cut, in (0, 1].

    Returns:
      The metrics `pixel_auroc`, `pixel_ap`, `pixel_f1max` and `pixel_aupro`;
      nan if no pixel is defective, or none is normal.
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
    """Computes AP with the defective pixels of a bin amid its normal ones.

    If they counted as ties, they would all get the precision at the bin's end,
    which is too low by an error linear in the width of the bins.
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
  """Computes AUROC, AP and F1max of labels and scores (n,), weighted or not."""
  if labels.all() or not labels.any():
    return dict.fromkeys(("auroc", "ap", "f1max"), float("nan"))
  precision, recall, _ = sklearn.metrics.precision_recall_curve(
    labels, scores, sample_weight=weights
  )
  # Above the highest score of a defect, precision and recall are both 0; F1
  # is then 0 instead of 0 / 0.
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
  """Integrates a weighted ROC curve up to `max_fpr`, divided by `max_fpr`."""
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
  """Returns the area of every pixel's region, (n, H, W); 0 outside regions."""
  regions, _ = scipy.ndimage.label(masks, structure=_EIGHT_CONNECTED)
  areas = np.bincount(regions.ravel(), minlength=1)
  areas[0] = 0
  return areas[regions]


def _checked(
  labels: np.ndarray, scores: np.ndarray, *, ndim: int
) -> tuple[np.ndarray, np.ndarray]:
  """Checks labels and scores; returns them as bool and as float32 or wider."""
  labels, scores = np.asarray(labels), np.asarray(scores)
  if labels.shape != scores.shape or scores.ndim != ndim:
    raise ValueError(
      f"Labels or masks have shape {labels.shape} and scores or maps"
      f" {scores.shape}, expected the same shape of {ndim} dimensions."
    )
  if not np.isfinite(scores).all():
    raise ValueError(
      f"{np.count_nonzero(~np.isfinite(scores))} of {scores.size} anomaly"
      " scores are not finite (nan or inf), so metrics have no meaning. Check"
      " whether the training diverged or the weights are damaged."
    )
  wide = np.promote_types(scores.dtype, np.float32)
  return labels.astype(bool), scores.astype(wide, copy=False)
