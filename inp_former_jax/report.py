"""What an evaluation leaves behind: table, JSON, CSV and a picture."""

import csv
import json
import os
import pathlib
import typing

import jax
import numpy as np
import rich.box
import rich.console
import rich.table
from ml_collections import ConfigDict

from inp_former_jax import experiment
from inp_former_jax.data import transforms
from inp_former_jax.visualize import QualitativeSample, save_qualitative_grid

if typing.TYPE_CHECKING:
  from inp_former_jax.evaluate import CategoryResult, Evaluation

COLUMNS = {
  "image_auroc": "image\nAUROC",
  "image_ap": "image\nAP",
  "image_f1max": "image\nF1max",
  "pixel_auroc": "pixel\nAUROC",
  "pixel_ap": "pixel\nAP",
  "pixel_f1max": "pixel\nF1max",
  "pixel_aupro": "pixel\nAUPRO",
}


def write_report(
  result: "Evaluation", config: ConfigDict, workdir: pathlib.Path
) -> None:
  """Prints the table; writes metrics.json, metrics.csv and the grid.

  Args:
    result: Of the test set.
    config: Of the run; it goes into metrics.json.
    workdir: Where `metrics.json`, `metrics.csv` and `grid.png` go.
  """
  if jax.process_index() != 0:
    return
  console = rich.console.Console()
  if not console.is_terminal:
    console.width = max(console.width, 100)  # a log file has room
  console.print(table(result))
  _write(workdir / "metrics.json", _json(result, config))
  _write_csv(workdir / "metrics.csv", result)
  written = ["metrics.json", "metrics.csv"]
  if result.maps and result.scale:
    save_grid(workdir / "grid.png", result, config)
    written.append("grid.png")
  names = ", ".join(written)
  console.print(f"{names} in {workdir}", highlight=False, soft_wrap=True)


def table(result: "Evaluation") -> rich.table.Table:
  """The metrics per category and their mean, in per cent.

  Args:
    result: Of the test set.

  Returns:
    A table; its caption says what was left out of which metric.
  """
  view = rich.table.Table(
    title=f"Test set after {result.step} steps, in %", box=rich.box.SIMPLE_HEAD
  )
  view.add_column("category", no_wrap=True)
  view.add_column("normal +\ndefective", justify="right", no_wrap=True)
  for heading in COLUMNS.values():
    view.add_column(heading, justify="right")
  notes = []
  for name, category in result.categories.items():
    mark = ""
    if category.without_mask:
      mark = " " + "*" * (len(notes) + 1)
      notes.append(
        f"{mark.strip()} {category.without_mask} of {category.defective} "
        "defective images have no mask: in the image metrics, not in the "
        "pixel metrics"
      )
    view.add_row(name + mark, _counts(category), *_cells(category.metrics))
  if len(result.categories) > 1:
    view.add_section()
    view.add_row("mean", "", *_cells(result.mean))
  view.caption = "\n".join(notes) or None
  view.caption_justify = "left"
  return view


def _counts(category: "CategoryResult") -> str:
  return f"{category.normal} + {category.defective}"


def _cells(metrics: dict[str, float]) -> list[str]:
  return [
    "-" if np.isnan(metrics[name]) else f"{100 * metrics[name]:.2f}"
    for name in COLUMNS
  ]


def _json(result: "Evaluation", config: ConfigDict) -> str:
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
    "config": config.to_dict(),
  }
  return json.dumps(content, indent=2) + "\n"


def _plain(metrics: dict[str, float]) -> dict[str, float | None]:
  return {k: None if np.isnan(v) else float(v) for k, v in metrics.items()}


def _write(path: pathlib.Path, text: str) -> None:
  """Writes a file whole or not at all."""
  part = path.with_name(path.name + ".part")
  part.write_text(text, encoding="utf-8")
  os.replace(part, path)


def _write_csv(path: pathlib.Path, result: "Evaluation") -> None:
  part = path.with_name(path.name + ".part")
  with open(part, "w", newline="", encoding="utf-8") as file:
    writer = csv.writer(file)
    writer.writerow(
      ["category", "normal", "defective", "defective_without_mask", *COLUMNS]
    )
    for name, category in result.categories.items():
      counts = [category.normal, category.defective, category.without_mask]
      values = [_csv_value(category.metrics[c]) for c in COLUMNS]
      writer.writerow([name, *counts, *values])
    mean = [_csv_value(result.mean[c]) for c in COLUMNS]
    writer.writerow(["mean", "", "", "", *mean])
  os.replace(part, path)


def _csv_value(value: float) -> str:
  return "" if np.isnan(value) else f"{value:.6f}"


def save_grid(
  path: pathlib.Path, result: "Evaluation", config: ConfigDict
) -> None:
  """Saves the qualitative grid: image, ground truth and map, one scale.

  Args:
    path: PNG file.
    result: Its `maps` name the records shown.
    config: For the preprocessing.
  """
  preprocessing = experiment.preprocessing(config)
  samples = []
  for index, anomaly_map in result.maps.items():
    record, size = result.records[index], len(anomaly_map)
    mask = np.zeros((size, size), bool)
    if record.label:
      mask = None
    if record.mask is not None:
      mask = transforms.load_mask(record.mask, preprocessing, size)
    samples.append(
      QualitativeSample(
        image=transforms.load_image(record.image, preprocessing),
        mask=_upscale(mask, preprocessing.crop),
        anomaly_map=anomaly_map,
        title=f"{record.category} / {record.defect}",
        score=float(result.image_scores[index]),
      )
    )
  save_qualitative_grid(
    path,
    samples,
    vmin=result.scale.vmin,
    vmax=result.scale.vmax,
    title=f"After {result.step} steps",
  )


def _upscale(
  mask: np.ndarray | None, size: tuple[int, int]
) -> np.ndarray | None:
  """Evaluation mask to the image's size, by nearest neighbour."""
  if mask is None:
    return None
  rows, columns = (np.arange(s) * len(mask) // s for s in size)
  return mask[np.ix_(rows, columns)]
