"""An evaluation without a model: real image files, made-up scores and maps."""

import pathlib

import numpy as np
from PIL import Image

from inp_former_jax.data.records import Record
from inp_former_jax.data.transforms import Preprocessing
from inp_former_jax.evaluation import curves, metrics
from inp_former_jax.evaluation.results import (
  CategoryResult,
  Evaluation,
  mean_metrics,
)
from inp_former_jax.evaluation.worst_cases import worst_cases
from inp_former_jax.inference.calibration import (
  ALL,
  Calibration,
  Evidence,
  Options,
)
from inp_former_jax.inference.colours import ColourScale
from inp_former_jax.inference.decision import Thresholds
from inp_former_jax.inference.inp_maps import InpMaps

SIZE = 56  # pixels, of images and maps
SCALE = ColourScale(0.1, 0.4)
NASTY = (
  "<img src=x onerror=alert(1)>.png",
  'a "quoted" & $math$ name.png',
  "[bold]mark.png",
  "テスト 部品.png",
  "{{ 7 * 7 }}.png",
  "x" * 120 + ".png",
)
THRESHOLDS = Thresholds(image=0.25, pixel=0.3, typical=0.15)
CALIBRATION = Calibration(
  step=10,
  options=Options(),
  scale=SCALE,
  thresholds={ALL: THRESHOLDS},
  evidence={ALL: Evidence("rate", 30, 0, 0.05, (0.01, 0.1), 0.01, (0.0, 0.02))},
  images="30 <held-out> images",
  sha256="0",
)


def fake_evaluation(
  folder: pathlib.Path,
  categories: tuple[str, ...],
  *,
  calibration: Calibration | None = None,
  per_label: int = 6,
) -> Evaluation:
  """Each category has as many normal as defective images, of nasty names."""
  rng = np.random.default_rng(0)
  records, scores, maps, results, pixels = [], [], [], {}, {}
  for number, category in enumerate(categories):
    found = _category(folder / str(number), category, per_label, rng)
    records += [record for record, *_ in found]
    labels = np.array([record.label for record, *_ in found])
    own = np.array([m.max() for _, m, _ in found], np.float32)
    scores.append(own)
    maps += [m for _, m, _ in found]
    histograms = metrics.PixelHistograms()
    histograms.add(
      np.stack([m for _, m, _ in found]), np.stack([g for *_, g in found])
    )
    values = metrics.image_metrics(labels, own) | histograms.metrics()
    results[category] = CategoryResult(values, per_label, per_label, number % 2)
    pixels[category] = curves.pixel_curves(histograms)
  every = np.concatenate(scores)
  kept = [
    i
    for cases in worst_cases(records, every).values()
    for i in (*cases.misses, *cases.false_alarms)
  ]
  attention = rng.dirichlet(np.ones(16), (1, 6)).reshape(1, 6, 4, 4)
  inps = InpMaps(attention, rng.random((1, 4, 4)))
  return Evaluation(
    step=10,
    categories=results,
    mean=mean_metrics(results.values()),
    records=records,
    image_scores=every,
    maps={0: maps[0], per_label: maps[per_label]},
    preprocessing=Preprocessing((SIZE, SIZE), (SIZE, SIZE)),
    scale=SCALE,
    worst_maps={i: maps[i] for i in kept},
    pixel_curves=pixels,
    calibration=calibration,
    inps={per_label: inps},
  )


def _category(
  folder: pathlib.Path, category: str, per_label: int, rng
) -> list[tuple[Record, np.ndarray, np.ndarray]]:
  """Returns the records of a category with their maps and masks."""
  found = []
  for label, kind in ((0, "good"), (1, "hole")):
    (folder / kind).mkdir(parents=True)
    for number in range(per_label):
      image = folder / kind / NASTY[number % len(NASTY)]
      if image.exists():
        image = image.with_name(f"{number:03}.png")
      picture = rng.integers(0, 256, (SIZE, SIZE, 3), np.uint8)
      Image.fromarray(picture).save(image, "PNG")
      truth = np.zeros((SIZE, SIZE), bool)
      anomaly_map = rng.uniform(0.1, 0.22, truth.shape).astype(np.float32)
      masks = ()
      if label:
        truth[10:30, 20 + number : 40] = True
        anomaly_map[12:32, 22:36] += np.float32(0.04 * number)
        masks = (folder / f"mask_{number}.png",)
        Image.fromarray(truth * np.uint8(255)).save(masks[0])
      record = Record(image, category, label, kind, masks)
      found.append((record, anomaly_map, truth))
  return found
