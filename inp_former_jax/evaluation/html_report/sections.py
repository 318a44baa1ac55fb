"""The page's part on one category: curves, worst misses and false alarms."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from inp_former_jax.data.records import DEFECTIVE
from inp_former_jax.evaluation import curves, figures
from inp_former_jax.evaluation.curves import Curve
from inp_former_jax.evaluation.drawing.record_display import (
  load_image_and_mask,
  short_name,
)
from inp_former_jax.evaluation.html_report import charts, pictures
from inp_former_jax.evaluation.html_report.charts import Chart
from inp_former_jax.evaluation.results import Evaluation
from inp_former_jax.evaluation.worst_cases import CASES, worst_cases
from inp_former_jax.inference.decision import DECISIONS, Thresholds

ALL_PICTURES = 2_600_000  # bytes of all cases together, before base64
MAX_PICTURE = 40_000  # bytes of one case
MANY = 40  # more categories than these show fewer cases each


@dataclasses.dataclass(frozen=True)
class Case:
  """A record with its pictures.

  Attributes:
    name: Name of the image and of its folder.
    defect: The kind of defect; "good" for a normal image.
    score: Its image score.
    decision: "anomalous" or "normal"; empty without a threshold.
    wrong: Whether the decision is wrong.
    address: The strip of image, ground truth and anomaly map.
  """

  name: str
  defect: str
  score: float
  decision: str
  wrong: bool
  address: str


@dataclasses.dataclass(frozen=True)
class Section:
  """What the page shows of a category.

  Attributes:
    title: Name of the category.
    anchor: Its address within the page.
    summary: What it holds, and what went wrong, in a phrase.
    charts: Its charts.
    misses: The defective images with the lowest scores.
    false_alarms: The normal images with the highest scores.
  """

  title: str
  anchor: str
  summary: str
  charts: Sequence[Chart]
  misses: Sequence[Case]
  false_alarms: Sequence[Case]


def make_sections(result: Evaluation) -> list[Section]:
  """Draws the part of each category.

  Args:
    result: The evaluation.

  Returns:
    The parts, in the order of the categories; none for results that were
    combined from several evaluations.
  """
  if not result.records or result.image_scores is None:
    return []
  cases = worst_cases(
    result.records, result.image_scores, cases_shown(len(result.categories))
  )
  number = sum(len(c.misses) + len(c.false_alarms) for c in cases.values())
  max_bytes = min(MAX_PICTURE, ALL_PICTURES // max(number, 1))
  labels = np.array([r.label for r in result.records])
  names = np.array([r.category for r in result.records])
  sections = []
  for position, category in enumerate(result.categories):
    inside = names == category
    found, scores = labels[inside], result.image_scores[inside]
    thresholds = thresholds_of(result, category)
    sections.append(
      Section(
        title=category,
        anchor=anchor(position),
        summary=_summary(found, scores, thresholds),
        charts=_charts(
          found, scores, result.pixel_curves.get(category, {}), thresholds
        ),
        misses=[_case(result, i, max_bytes) for i in cases[category].misses],
        false_alarms=[
          _case(result, i, max_bytes) for i in cases[category].false_alarms
        ],
      )
    )
  return sections


def anchor(position: int) -> str:
  """Returns the address, within the page, of the n-th category from 0."""
  return f"category-{position + 1}"


def cases_shown(categories: int) -> int:
  """Returns how many cases of each kind each of n categories shows."""
  return CASES if categories <= MANY else CASES - 1


def thresholds_of(result: Evaluation, category: str) -> Thresholds | None:
  """Returns the thresholds for a category; None without a calibration."""
  if result.calibration is None:
    return None
  return result.calibration.thresholds_of(category)


def _summary(
  labels: np.ndarray, scores: np.ndarray, thresholds: Thresholds | None
) -> str:
  defective = int(labels.sum())
  normal = len(labels) - defective
  if thresholds is None:
    return f"{normal} normal, {defective} defective"
  anomalous = thresholds.is_anomalous(scores)
  alarms = int(anomalous[labels == 0].sum())
  missed = defective - int(anomalous[labels == 1].sum())
  return (
    f"{alarms} of {normal} normal images above the threshold, {missed} of "
    f"{defective} defective ones not"
  )


def _charts(
  labels: np.ndarray,
  scores: np.ndarray,
  pixels: dict[str, Curve],
  thresholds: Thresholds | None,
) -> list[Chart]:
  normal, defective = scores[labels == 0], scores[labels == 1]
  limit = None if thresholds is None else thresholds.image
  result = [charts.density_chart("Scores", normal, defective, limit)]
  images = curves.image_curves(labels, scores)
  dots = {"roc": [], "precision_recall": []}
  if limit is not None and images:
    fpr, tpr = np.mean(normal > limit), np.mean(defective > limit)
    dots["roc"].append(("a", fpr, tpr))
    if (scores > limit).any():
      precision = labels[scores > limit].mean()
      dots["precision_recall"].append(("a", tpr, precision))
  for key, title, x_label, y_label in (
    ("roc", "ROC", "false positive rate", "true positive rate"),
    ("precision_recall", "Precision-recall", "recall", "precision"),
  ):
    lines = [
      (name, style, found[key])
      for name, style, found in (
        ("images", "a", images),
        ("pixels", "b", pixels),
      )
      if key in found
    ]
    if lines:
      result.append(
        charts.rate_chart(title, x_label, y_label, lines, dots=dots[key])
      )
  if "pro" in pixels:
    result.append(
      charts.rate_chart(
        "Per-region overlap",
        "false positive rate of pixels",
        "mean overlap of regions",
        [("regions", "b", pixels["pro"])],
        x_end=0.3,
      )
    )
  return result


def _case(result: Evaluation, index: int, max_bytes: int) -> Case:
  record, anomaly_map = result.records[index], result.worst_maps[index]
  # Only merged results lack these, and those have no records.
  assert result.preprocessing is not None
  assert result.scale is not None
  assert result.image_scores is not None
  image, mask = load_image_and_mask(
    record, result.preprocessing, len(anomaly_map)
  )
  scale, thresholds = result.scale, thresholds_of(result, record.category)
  drawn = figures.overlay(image, anomaly_map, scale.vmin, scale.vmax)
  score, decision, wrong = result.image_scores[index], "", False
  if thresholds is not None:
    marked = figures.at_size(anomaly_map, image.shape[:2])
    drawn = figures.contour(drawn, thresholds.mask(marked))
    anomalous = bool(thresholds.is_anomalous(score))
    decision = DECISIONS[bool(anomalous)]
    wrong = anomalous != (record.label == DEFECTIVE)
  strip = pictures.strip((image, mask, drawn), pictures.side_for(max_bytes, 3))
  return Case(
    name=short_name(record.image),
    defect=record.defect,
    score=float(score),
    decision=decision,
    wrong=wrong,
    address=pictures.data_address(strip, max_bytes),
  )
