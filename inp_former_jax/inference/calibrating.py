"""Computes thresholds and colour scale from images that are new to a model."""

import dataclasses
import hashlib
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from inp_former_jax.data.masks import decode_mask
from inp_former_jax.data.records import DEFECTIVE, NORMAL, Record
from inp_former_jax.inference import false_alarms
from inp_former_jax.inference.answer import Answer
from inp_former_jax.inference.calibration import (
  ALL,
  Calibration,
  CalibrationError,
  Evidence,
)
from inp_former_jax.inference.colours import colour_scale
from inp_former_jax.inference.decision import Thresholds
from inp_former_jax.inference.predictor import Predictor

RATE, F1 = "rate", "f1"
METHODS = (RATE, F1)
# Maps are smooth, so that this many of their pixels along a side tell as much
# about the distribution of their values as all of them do.
GRID = 64


@dataclasses.dataclass(frozen=True)
class Sample:
  """What calibration keeps of an image.

  Attributes:
    category: The image's category.
    defective: Whether it is defective.
    score: The image score.
    pixels: Values of its anomaly map on a regular grid, (m,) float32, without
      those that were not inspected.
    mask: Which of these pixels are defective, (m,) bool; None if unknown.
  """

  category: str
  defective: bool
  score: float
  pixels: np.ndarray
  mask: np.ndarray | None


def calibrate(
  predictor: Predictor,
  records: Sequence[Record],
  *,
  method: str = RATE,
  image_rate: float = 0.05,
  pixel_rate: float = 0.001,
  per_category: bool = True,
  images: str = "",
  track=iter,
) -> Calibration:
  """Computes thresholds and colour scale.

  Args:
    predictor: The model, with the options that predictions will be made with.
    records: Images that the model was not trained on: normal ones, and for F1
      defective ones too. With RATE, defective ones only tell the miss rate.
    method: RATE finds thresholds with a false-alarm rate on normal images, F1
      those with the largest F1 on normal and defective ones.
    image_rate: The false-alarm rate on images, in (0, 1).
    pixel_rate: The false-alarm rate on the pixels of normal images, in (0, 1);
      with F1 it is used if no mask is known.
    per_category: Whether every category gets thresholds of its own as well.
    images: Description of the images, for people.
    track: Function that wraps the iteration over the answers, to show progress.

  Returns:
    The calibration.

  Raises:
    CalibrationError: If there are no normal images, or with F1 no defective
      ones.
    DataError: If a file cannot be read.
    ValueError: If a rate is out of range, or the method is unknown.
  """
  _check(records, method, image_rate, pixel_rate)
  answers = predictor.stream(record.image for record in records)
  samples = list(_samples(records, track(answers)))
  groups = {ALL: samples}
  if per_category:
    for category in dict.fromkeys(s.category for s in samples):
      group = [s for s in samples if s.category == category]
      if category != ALL and _suffices(group, method):
        groups[category] = group
  found = {
    category: _thresholds(group, method, image_rate, pixel_rate)
    for category, group in groups.items()
  }
  normal = [s.pixels[None] for s in samples if not s.defective]
  others = [s.pixels[None] for s in samples if s.defective]
  names = sorted(f"{r.category}/{r.image.name}" for r in records)
  return Calibration(
    step=predictor.model.step,
    options=predictor.options,
    scale=colour_scale(normal, others),
    thresholds={category: t for category, (t, _) in found.items()},
    evidence={category: e for category, (_, e) in found.items()},
    images=images,
    sha256=hashlib.sha256("\n".join(names).encode()).hexdigest(),
  )


def describe(
  calibration: Calibration, categories: bool = True
) -> Iterator[str]:
  """Describes thresholds in a line for each, with what to expect of them.

  Args:
    calibration: The calibration.
    categories: Whether those of the categories are described too.

  Yields:
    The lines.
  """
  several = categories and len(calibration.evidence) > 2
  for category, evidence in calibration.evidence.items():
    if category == ALL or several:
      yield _line(category, calibration.thresholds_of(category), evidence)
  few = {
    category or "all images": evidence.normal
    for category, evidence in calibration.evidence.items()
    if (category == ALL or len(calibration.evidence) > 2)
    and evidence.method == RATE
    and evidence.normal < false_alarms.least_images(evidence.image_rate)
  }
  if few:
    rate = calibration.evidence[ALL].image_rate
    least = min(few, key=lambda category: few[category])
    yield (
      f"Warning: a false-alarm rate of {rate:.1%} takes at least "
      f"{false_alarms.least_images(rate)} normal images; there are fewer of "
      f"{', '.join(few)}. Their thresholds are their highest scores, at which "
      f"more false alarms are to be expected: {1 / (few[least] + 1):.1%} with "
      f"the {few[least]} of {least}."
    )


def _line(category: str, thresholds: Thresholds, evidence: Evidence) -> str:
  return (
    f"{category or 'all images'}: image threshold {thresholds.image:.4f}, "
    f"false alarms on {_percent(*evidence.image_interval)} of new normal "
    f"images; pixel threshold {thresholds.pixel:.4f}, on "
    f"{_percent(*evidence.pixel_interval)} of their pixels (95 % confidence, "
    f"from {evidence.normal} normal images{_found(evidence)})."
  )


def _found(evidence: Evidence) -> str:
  parts = ""
  if evidence.defective:
    parts = f" and {evidence.defective} defective ones"
  if evidence.image_f1 is not None:
    parts += f", F1 {evidence.image_f1:.3f}"
  if evidence.pixel_f1 is not None:
    parts += f", of pixels {evidence.pixel_f1:.3f}"
  if evidence.miss_rate is not None:
    parts += f", {evidence.miss_rate:.1%} of the defective ones missed"
  return parts


def _percent(low: float, high: float) -> str:
  digits = 1 if high >= 0.01 else 3
  return f"{100 * low:.{digits}f}-{100 * high:.{digits}f} %"


def _check(
  records: Sequence[Record], method: str, image_rate: float, pixel_rate: float
) -> None:
  if method not in METHODS:
    raise ValueError(f"`method` is {method!r}; it can be {', '.join(METHODS)}.")
  for name, rate in (("image_rate", image_rate), ("pixel_rate", pixel_rate)):
    if not 0 < rate < 1:
      raise ValueError(
        f"`{name}` is {rate}; expected a share between 0 and 1, as in 0.05."
      )
  labels = {record.label for record in records}
  if NORMAL not in labels:
    raise CalibrationError(
      "There are no normal images to calibrate with. Name some that the model "
      "was not trained on."
    )
  if method == F1 and DEFECTIVE not in labels:
    raise CalibrationError(
      "There are no defective images, and F1 needs some. Label some, or "
      "calibrate for a false-alarm rate, which needs normal images alone."
    )


def _suffices(group: Sequence[Sample], method: str) -> bool:
  labels = {sample.defective for sample in group}
  return False in labels and (method == RATE or True in labels)


def _samples(
  records: Sequence[Record], answers: Iterable[Answer]
) -> Iterator[Sample]:
  for record, answer in zip(records, answers, strict=True):
    rows, columns = (
      np.linspace(0, side - 1, min(side, GRID)).round().astype(int)
      for side in answer.anomaly_map.shape
    )
    grid = np.ix_(rows, columns)
    pixels = answer.anomaly_map[grid]
    inspected = ~np.isnan(pixels)
    mask = None
    if record.masks:
      whole = decode_mask(
        record.masks, values=record.mask_values, image_path=record.image
      )
      mask = (np.asarray(whole)[grid] > 127)[inspected]
    yield Sample(
      category=record.category,
      defective=record.label == DEFECTIVE,
      score=answer.score,
      pixels=pixels[inspected],
      mask=mask,
    )


def _thresholds(
  samples: Sequence[Sample], method: str, image_rate: float, pixel_rate: float
) -> tuple[Thresholds, Evidence]:
  normal = [s for s in samples if not s.defective]
  defective = np.array([s.defective for s in samples])
  scores = np.array([s.score for s in samples])
  by_images = false_alarms.image_bound(scores[~defective], image_rate)
  by_pixels = false_alarms.pixel_bound([s.pixels for s in normal], pixel_rate)
  image, image_interval = by_images.threshold, by_images.interval
  pixel, pixel_interval = by_pixels.threshold, by_pixels.interval
  image_f1 = pixel_f1 = None
  if method == F1:
    image, image_f1 = false_alarms.f1_threshold(defective, scores)
    alarms = int((scores[~defective] > image).sum())
    image_rate = alarms / len(normal)
    image_interval = false_alarms.rate_interval(alarms, len(normal))
    masked = [s for s in samples if s.mask is not None and s.mask.any()]
    if masked:
      pixel, pixel_f1 = _pixel_f1([*normal, *masked])
      pixel_rate, pixel_interval = false_alarms.pixel_rate(
        [s.pixels for s in normal], pixel
      )
  evidence = Evidence(
    method=method,
    normal=len(normal),
    defective=int(defective.sum()),
    image_rate=image_rate,
    image_interval=image_interval,
    pixel_rate=pixel_rate,
    pixel_interval=pixel_interval,
    image_f1=image_f1,
    pixel_f1=pixel_f1,
    miss_rate=float((scores[defective] <= image).mean())
    if defective.any()
    else None,
  )
  typical = min(float(np.median(scores[~defective])), image - 1e-6)
  return Thresholds(image, pixel, typical), evidence


def _pixel_f1(samples: Sequence[Sample]) -> tuple[float, float]:
  masks = [
    np.zeros(len(s.pixels), bool) if s.mask is None else s.mask for s in samples
  ]
  return false_alarms.f1_threshold(
    np.concatenate(masks), np.concatenate([s.pixels for s in samples])
  )
