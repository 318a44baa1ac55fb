"""Writes the results of an evaluation: tables, JSON, CSV, pictures, a page."""

import csv
import json
import os
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import numpy as np
import rich.console
from ml_collections import ConfigDict

from inp_former_jax.atomic import replacing, write_json
from inp_former_jax.evaluation import paper, tables
from inp_former_jax.evaluation.drawing.grid import save_grid
from inp_former_jax.evaluation.drawing.inp_figure import (
  InpFigure,
  inp_figure,
  save_inp_figure,
)
from inp_former_jax.evaluation.drawing.record_display import whole_name
from inp_former_jax.evaluation.html_report.page import REPORT, write_page
from inp_former_jax.evaluation.results import (
  COLUMNS,
  SAMPLE_COLUMNS,
  CategoryResult,
  Evaluation,
)
from inp_former_jax.inference.calibration import Calibration
from inp_former_jax.inference.decision import DECISIONS
from inp_former_jax.terminal import escaped

METRICS = "metrics.json"
SCORES = "test_scores.csv"
GRID = "grid.png"
INPS = "inps.png"
SCORE_COLUMNS = (
  "image",
  "category",
  "label",
  "defect",
  "score",
  "normalised",
  "decision",
  "threshold",
)


def write_report(
  result: Evaluation, config: ConfigDict, workdir: pathlib.Path
) -> None:
  """Prints the tables; writes metrics, scores, pictures and the page.

  If there were no test images, it prints a line to that effect and writes
  nothing.

  Args:
    result: The evaluation of the test set.
    config: The config of the run, which is recorded in metrics.json.
    workdir: Folder for `metrics.json`, `metrics.csv`, `report.html` and, unless
      the results of several evaluations are combined, `test_scores.csv`,
      `grid.png` and `inps.png`.
  """
  if jax.process_index() != 0:
    return
  if not result.categories:
    print(
      f"No test images: nothing to measure. The model is in {escaped(workdir)}."
    )
    return
  console = rich.console.Console()
  if not console.is_terminal and "COLUMNS" not in os.environ:
    console.width = max(console.width, 100)  # a log file has room
  tables.print_tables(result, paper.rows(config), console)
  write_json(workdir / METRICS, _content(result, config))
  with replacing(workdir / "metrics.csv") as path:
    _write_csv(path, result)
  names = [METRICS, "metrics.csv"]
  if result.records:
    with replacing(workdir / SCORES) as path:
      _write_scores(path, result)
    names.append(SCORES)
  if result.maps:
    save_grid(workdir / GRID, result)
    names.append(GRID)
  inps = _inp_figure(result)
  if inps is not None:
    save_inp_figure(workdir / INPS, inps)
    names.append(INPS)
  write_page(
    workdir / REPORT,
    result,
    paper_rows=paper.rows(config),
    settings=_flat(config),
    inps=inps,
  )
  names.append(REPORT)
  console.print(
    f"{', '.join(names)} in {escaped(workdir)}",
    markup=False,
    highlight=False,
    soft_wrap=True,
  )


def _inp_figure(result: Evaluation) -> InpFigure | None:
  if not result.inps:
    return None
  assert result.preprocessing is not None  # only merged results have none
  return inp_figure(result.records, result.inps, result.preprocessing)


def _flat(config: ConfigDict, prefix: str = "") -> dict[str, object]:
  """Returns the config's fields by their whole names, "data.layout"."""
  flat: dict[str, object] = {}
  for name, value in config.items():
    if isinstance(value, ConfigDict):
      flat |= _flat(value, f"{prefix}{name}.")
    else:
      flat[prefix + name] = value
  return flat


def read_metrics(
  workdir: pathlib.Path, config: ConfigDict
) -> tuple[int, dict[str, CategoryResult]] | None:
  """Reads the metrics that `write_report` wrote.

  Args:
    workdir: Folder of the run.
    config: The config of the run.

  Returns:
    The number of training steps, and the result of each category; None if
    there are no metrics, or only those of another config.
  """
  path = workdir / METRICS
  if not path.is_file():
    return None
  content = json.loads(path.read_text(encoding="utf-8"))
  if content["config"] != json.loads(json.dumps(config.to_dict())):
    return None
  return content["step"], {
    name: CategoryResult(
      metrics={
        k: float("nan") if v is None else v
        for k, v in saved.items()
        if k in COLUMNS | SAMPLE_COLUMNS
      },
      normal=saved["normal"],
      defective=saved["defective"],
      without_mask=saved["defective_without_mask"],
    )
    for name, saved in content["categories"].items()
  }


def _content(result: Evaluation, config: ConfigDict) -> dict[str, Any]:
  """Returns the metrics, None where undefined, and how they were measured."""
  return {
    "step": result.step,
    "protocol": {
      "evaluation_size": config.evaluation.size,
      "masks": "bilinear 8-bit resize and crop, nearest to size, > 0.5",
      "aupro_max_fpr": config.evaluation.max_fpr,
      "pixel_metrics": "exact" if config.evaluation.exact else "streaming",
    },
    "mean": _plain(result.mean),
    "categories": {
      name: _plain(category.metrics)
      | {
        "normal": category.normal,
        "defective": category.defective,
        "defective_without_mask": category.without_mask,
      }
      for name, category in result.categories.items()
    },
    "sources": {k: _plain(v) for k, v in result.source_means.items()},
    "paper": paper.rows(config),
    "categories_without_test_images": list(result.untested),
    "colour_scale": result.scale and [result.scale.vmin, result.scale.vmax],
    "config": config.to_dict(),
  }


def _plain(metrics: dict[str, float]) -> dict[str, float | None]:
  return {k: None if np.isnan(v) else float(v) for k, v in metrics.items()}


def _write_csv(path: pathlib.Path, result: Evaluation) -> None:
  with open(path, "w", newline="", encoding="utf-8") as file:
    writer = csv.writer(file)
    writer.writerow(
      ["category", "normal", "defective", "defective_without_mask"]
      + list(result.columns)
    )
    for name, category in result.categories.items():
      counts = [category.normal, category.defective, category.without_mask]
      values = _csv_values(category.metrics, result.columns)
      writer.writerow([name, *counts, *values])
    for source, mean in result.source_means.items():
      values = _csv_values(mean, result.columns)
      writer.writerow([f"mean of {source}", "", "", "", *values])
    values = _csv_values(result.mean, result.columns)
    writer.writerow(["mean", "", "", "", *values])


def _write_scores(path: pathlib.Path, result: Evaluation) -> None:
  """Writes a line for every test image, with all digits of its numbers."""
  assert result.image_scores is not None  # only merged results have none
  # A name may hold bytes that are no UTF-8, which are written as they are.
  with open(
    path, "w", newline="", encoding="utf-8", errors="surrogateescape"
  ) as file:
    writer = csv.writer(file)
    writer.writerow(SCORE_COLUMNS)
    for record, score in zip(
      result.records, result.image_scores.tolist(), strict=True
    ):
      writer.writerow(
        [
          whole_name(record.image),
          record.category,
          record.label,
          record.defect,
          repr(score),
          *_decision(result.calibration, record.category, score),
        ]
      )


def _decision(
  calibration: Calibration | None, category: str, score: float
) -> tuple[str, str, str]:
  """Returns the normalised score, the decision and the threshold as texts."""
  if calibration is None:
    return "", "", ""
  thresholds = calibration.thresholds_of(category)
  decision = DECISIONS[bool(thresholds.is_anomalous(score))]
  normalised = float(thresholds.normalised(score))
  return repr(normalised), decision, repr(float(thresholds.image))


def _csv_values(
  metrics: Mapping[str, float], columns: Iterable[str]
) -> list[str]:
  values = [metrics.get(name, np.nan) for name in columns]
  return ["" if np.isnan(v) else f"{v:.6f}" for v in values]
