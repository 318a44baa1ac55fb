"""The results of an evaluation, and their means."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from inp_former_jax.data.records import Record
from inp_former_jax.data.transforms import Preprocessing
from inp_former_jax.evaluation.curves import Curve
from inp_former_jax.inference.calibration import Calibration
from inp_former_jax.inference.colours import ColourScale
from inp_former_jax.inference.inp_maps import InpMaps

COLUMNS = {
  "image_auroc": "image\nAUROC",
  "image_ap": "image\nAP",
  "image_f1max": "image\nF1max",
  "pixel_auroc": "pixel\nAUROC",
  "pixel_ap": "pixel\nAP",
  "pixel_f1max": "pixel\nF1max",
  "pixel_aupro": "pixel\nAUPRO",
}
# Metrics of data sets that show an object in several views.
SAMPLE_COLUMNS = {
  "sample_auroc": "sample\nAUROC",
  "sample_ap": "sample\nAP",
  "sample_f1max": "sample\nF1max",
}
# The metrics of each kind, in the order of the tables.
COLUMN_GROUPS = {
  kind: tuple(name for name in COLUMNS | SAMPLE_COLUMNS if kind in name)
  for kind in ("image", "sample", "pixel")
}


@dataclasses.dataclass(frozen=True)
class CategoryResult:
  """Metrics of one category, and the images that they were computed from.

  Attributes:
    metrics: image_auroc, image_ap, image_f1max, pixel_auroc, pixel_ap,
      pixel_f1max and pixel_aupro, each in [0, 1]; nan where undefined. If
      objects are seen in several views, also sample_auroc, sample_ap and
      sample_f1max.
    normal: Number of normal test images.
    defective: Number of defective test images.
    without_mask: Number of defective images without a mask, which count in the
      image metrics and are left out of the pixel metrics.
  """

  metrics: dict[str, float]
  normal: int
  defective: int
  without_mask: int


@dataclasses.dataclass(frozen=True)
class Evaluation:
  """Result of an evaluation.

  Attributes:
    step: Number of steps that the model was trained for.
    categories: The result of each category.
    mean: The mean of each metric over the categories where it is defined.
    source_means: The same means for each data set, if several are mixed;
      otherwise empty.
    records: The test records; empty if the results of several evaluations were
      combined.
    image_scores: The image score of each record, (len(records),) float32.
    maps: Anomaly maps, (S, S) float32, by the index of their record; only those
      of the qualitative grid.
    preprocessing: Sizes of the images; None if the results of several
      evaluations were combined.
    scale: The colour scale that all maps of the model share: that of the
      calibration, if there is one.
    untested: Categories that were trained on but have no test image.
    worst_maps: Anomaly maps, (S, S) float32, of the worst misses and false
      alarms of each category, by the index of their record.
    pixel_curves: The curves of the pixels of each category, by its name.
    calibration: Thresholds and colour scale of the model, if it has any.
    inps: INP maps of a few records, each of one image, by the index of their
      record; empty if the model has no INPs.
  """

  step: int
  categories: dict[str, CategoryResult]
  mean: dict[str, float]
  records: Sequence[Record] = ()
  image_scores: np.ndarray | None = None
  maps: dict[int, np.ndarray] = dataclasses.field(default_factory=dict)
  preprocessing: Preprocessing | None = None
  scale: ColourScale | None = None
  untested: tuple[str, ...] = ()
  source_means: dict[str, dict[str, float]] = dataclasses.field(
    default_factory=dict
  )
  worst_maps: dict[int, np.ndarray] = dataclasses.field(default_factory=dict)
  pixel_curves: dict[str, dict[str, Curve]] = dataclasses.field(
    default_factory=dict
  )
  calibration: Calibration | None = None
  inps: dict[int, InpMaps] = dataclasses.field(default_factory=dict)

  @property
  def columns(self) -> dict[str, str]:
    """Headings of the metrics that the result has, by metric."""
    samples = any(name in self.mean for name in SAMPLE_COLUMNS)
    return COLUMNS | (SAMPLE_COLUMNS if samples else {})


def mean_metrics(
  categories: Iterable[CategoryResult],
) -> dict[str, float]:
  """Computes the mean of each metric over the categories that define it.

  Args:
    categories: Results of at least one category.

  Returns:
    The mean of each metric; nan if no category defines it.
  """
  results = [c.metrics for c in categories]
  mean = {}
  for name in dict.fromkeys(name for m in results for name in m):
    values = [m[name] for m in results if not np.isnan(m.get(name, np.nan))]
    mean[name] = float(np.mean(values)) if values else float("nan")
  return mean


def source_means(
  categories: Mapping[str, CategoryResult], records: Sequence[Record]
) -> dict[str, dict[str, float]]:
  """Computes the mean of each metric for each data set of a mixture.

  Args:
    categories: The result of each category.
    records: The test records, which say which data set a category is from.

  Returns:
    The means by data set; empty unless several are mixed.
  """
  sources = {r.category: r.source for r in records}
  by_source: dict[str, list[CategoryResult]] = {}
  for name, result in categories.items():
    by_source.setdefault(sources[name], []).append(result)
  if len(by_source) < 2:
    return {}
  return {name: mean_metrics(found) for name, found in by_source.items()}
