"""What an evaluation leaves behind: table, JSON, CSV and a picture."""

import csv
import json
import pathlib
from collections.abc import Iterable, Mapping

import jax
import numpy as np
import rich.box
import rich.console
import rich.table
from ml_collections import ConfigDict

from inp_former_jax.atomic import replacing
from inp_former_jax.evaluation import paper
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
  """Prints the table; writes metrics.json, metrics.csv and the grid.

  Without test images it only says so.

  Args:
    result: Of the test set.
    config: Of the run; it goes into metrics.json.
    workdir: Where `metrics.json`, `metrics.csv` and `grid.png` go.
  """
  if jax.process_index() != 0:
    return
  if not result.categories:
    print(f"No test images: nothing to measure. The model is in {workdir}.")
    return
  console = rich.console.Console()
  if not console.is_terminal:
    console.width = max(console.width, 100)  # a log file has room
  console.print(table(result, paper.rows(config)))
  with replacing(workdir / METRICS) as path:
    path.write_text(_json(result, config), encoding="utf-8")
  with replacing(workdir / "metrics.csv") as path:
    _write_csv(path, result)
  names = "metrics.json, metrics.csv"
  if result.maps:
    save_grid(workdir / "grid.png", result)
    names += ", grid.png"
  console.print(f"{names} in {workdir}", highlight=False, soft_wrap=True)


def read_metrics(
  workdir: pathlib.Path, config: ConfigDict
) -> tuple[int, dict[str, CategoryResult]] | None:
  """Reads what `write_report` wrote.

  Args:
    workdir: Of a run.
    config: Of that run.

  Returns:
    Steps of training and category -> result; None if there is nothing, or
    only the result of another config.
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


def table(
  result: Evaluation, paper_rows: Mapping[str, Mapping[str, float]]
) -> rich.table.Table:
  """The metrics per category and their mean, in per cent.

  Args:
    result: Of the test set.
    paper_rows: What the paper reports for these settings, by title.

  Returns:
    A table; its caption says what was left out of which metric.
  """
  view = rich.table.Table(
    title=f"Test set after {result.step} steps, in %", box=rich.box.SIMPLE_HEAD
  )
  view.add_column("category", no_wrap=True)
  view.add_column("normal +\ndefective", justify="right", no_wrap=True)
  for heading in result.columns.values():
    view.add_column(heading, justify="right")
  for name, category in result.categories.items():
    mark = " *" if category.without_mask else ""
    cells = _cells(category.metrics, result.columns)
    view.add_row(name + mark, _counts(category), *cells)
  if len(result.categories) > 1:
    view.add_section()
    for source, mean in result.source_means.items():
      view.add_row(f"mean of {source}", "", *_cells(mean, result.columns))
    view.add_row("mean", "", *_cells(result.mean, result.columns))
  for title, row in paper_rows.items():
    view.add_row(title, "", *_cells(row, result.columns), style="dim")
  view.caption = _notes(result)
  view.caption_justify = "left"
  return view


def _notes(result: Evaluation) -> str | None:
  """What the table leaves out, where it leaves out anything."""
  without = [
    f"{name} {category.without_mask} of {category.defective}"
    for name, category in result.categories.items()
    if category.without_mask
  ]
  notes = []
  if without:
    notes.append(
      "* defective images without a mask are in the image metrics and not in "
      f"the pixel metrics: {', '.join(without)}"
    )
  if result.untested:
    notes.append(f"no test images: {', '.join(result.untested)}")
  return "\n".join(notes) or None


def _counts(category: CategoryResult) -> str:
  return f"{category.normal} + {category.defective}"


def _cells(metrics: Mapping[str, float], columns: Iterable[str]) -> list[str]:
  values = [metrics.get(name, np.nan) for name in columns]
  return ["-" if np.isnan(v) else f"{100 * v:.2f}" for v in values]


def _json(result: Evaluation, config: ConfigDict) -> str:
  """Metrics in [0, 1], null where undefined, with the protocol beside them."""
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
