"""The results of an evaluation, and their means."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from inp_former_jax.data.records import Record
from inp_former_jax.data.transforms import Preprocessing
from inp_former_jax.evaluation.figures import ColourScale

COLUMNS = {
  "image_auroc": "image\nAUROC",
  "image_ap": "image\nAP",
  "image_f1max": "image\nF1max",
  "pixel_auroc": "pixel\nAUROC",
  "pixel_ap": "pixel\nAP",
  "pixel_f1max": "pixel\nF1max",
  "pixel_aupro": "pixel\nAUPRO",
}
# Where objects are seen in several views.
SAMPLE_COLUMNS = {
  "sample_auroc": "sample\nAUROC",
  "sample_ap": "sample\nAP",
  "sample_f1max": "sample\nF1max",
}
# Kind of metric -> its metrics, in the order of the tables.
COLUMN_GROUPS = {
  kind: tuple(name for name in COLUMNS | SAMPLE_COLUMNS if kind in name)
  for kind in ("image", "sample", "pixel")
}


@dataclasses.dataclass(frozen=True)
class CategoryResult:
  """Metrics of one category and what they were computed from.

  Attributes:
    metrics: image_auroc, image_ap, image_f1max, pixel_auroc, pixel_ap,
      pixel_f1max, pixel_aupro, each in [0, 1]; nan where undefined. Of
      objects in several views also sample_auroc, sample_ap, sample_f1max.
    normal: Normal test images.
    defective: Defective test images.
    without_mask: Defective images without a mask: they count in the image
      metrics and are left out of the pixel metrics.
  """

  metrics: dict[str, float]
  normal: int
  defective: int
  without_mask: int


@dataclasses.dataclass(frozen=True)
class Evaluation:
  """Result of an evaluation.

  Attributes:
    step: Training steps the model has had.
    categories: Category -> its result.
    mean: Metric -> mean over the categories where it is defined.
    source_means: The same by data set, where several are mixed; else empty.
    records: The test records; none where results have been put together.
    image_scores: (len(records),) float32.
    maps: Index of a record -> its anomaly map (S, S) float32, for the records
      of the qualitative grid.
    preprocessing: Sizes of the images; None where results have been put
      together.
    scale: The one colour scale of the model.
    untested: Categories that were trained on and have no test image.
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

  @property
  def columns(self) -> dict[str, str]:
    """Metric -> heading, of the metrics there are."""
    samples = any(name in self.mean for name in SAMPLE_COLUMNS)
    return COLUMNS | (SAMPLE_COLUMNS if samples else {})


def mean_metrics(
  categories: Iterable[CategoryResult],
) -> dict[str, float]:
  """Mean over the categories that define a metric; nan where none does.

  Args:
    categories: At least one.

  Returns:
    Metric -> mean.
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
  """Means by data set; empty unless several are mixed.

  Args:
    categories: Category -> its result.
    records: Test records.
  """
  sources = {r.category: r.source for r in records}
  by_source: dict[str, list[CategoryResult]] = {}
  for name, result in categories.items():
    by_source.setdefault(sources[name], []).append(result)
  if len(by_source) < 2:
    return {}
  return {name: mean_metrics(found) for name, found in by_source.items()}
