"""Writes the results of an evaluation: tables, JSON, CSV and a picture."""

import csv
import json
import os
import pathlib
from collections.abc import Iterable, Mapping

import jax
import numpy as np
import rich.console
from ml_collections import ConfigDict

from inp_former_jax.atomic import replacing
from inp_former_jax.evaluation import paper, tables
from inp_former_jax.evaluation.grid import save_grid
from inp_former_jax.evaluation.results import (
  COLUMNS,
  SAMPLE_COLUMNS,
  CategoryResult,
  Evaluation,
)

METRICS = "metrics.json"


def write_report(
  result: Evaluation, config: ConfigDict, workdir: pathlib.Path
) -> None:
  """Prints the tables; writes metrics.json, metrics.csv and the grid.

  If there were no test images, it prints a line to that effect and writes
  nothing.

  Args:
    result: The evaluation of the test set.
    config: The config of the run, which is recorded in metrics.json.
    workdir: Folder for `metrics.json`, `metrics.csv` and `grid.png`.
  """
  if jax.process_index() != 0:
    return
  if not result.categories:
    print(f"No test images: nothing to measure. The model is in {workdir}.")
    return
  console = rich.console.Console()
  if not console.is_terminal and "COLUMNS" not in os.environ:
    console.width = max(console.width, 100)  # a log file has room
  tables.print_tables(result, paper.rows(config), console)
  with replacing(workdir / METRICS) as path:
    path.write_text(_json(result, config), encoding="utf-8")
  with replacing(workdir / "metrics.csv") as path:
    _write_csv(path, result)
  names = "metrics.json, metrics.csv"
  if result.maps:
    save_grid(workdir / "grid.png", result)
    names += ", grid.png"
  console.print(
    f"{names} in {workdir}", markup=False, highlight=False, soft_wrap=True
  )


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


def _json(result: Evaluation, config: ConfigDict) -> str:
  """Formats the metrics, null where undefined, and how they were measured."""
  content = {
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
    "config": config.to_dict(),
  }
  return json.dumps(content, indent=2) + "\n"


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


def _csv_values(
  metrics: Mapping[str, float], columns: Iterable[str]
) -> list[str]:
  values = [metrics.get(name, np.nan) for name in columns]
  return ["" if np.isnan(v) else f"{v:.6f}" for v in values]
