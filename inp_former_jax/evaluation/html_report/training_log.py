"""Reads a run's log of its training, for charts."""

import json
import math
import pathlib

import numpy as np

from inp_former_jax.evaluation.curves import Curve
from inp_former_jax.evaluation.html_report.charts import Chart, progress_chart

LOG = "log.jsonl"
MAX_POINTS = 200  # longer logs are averaged
_LOSSES = {
  "loss": ("loss", "a"),
  "soft_mining_loss": ("soft mining", "b"),
  "coherence_loss": ("coherence", "c"),
}
_METRICS = {
  "test/image_auroc": ("image AUROC", "a"),
  "test/pixel_auroc": ("pixel AUROC", "b"),
  "test/pixel_aupro": ("pixel AUPRO", "c"),
}


def training_charts(workdir: pathlib.Path) -> list[Chart]:
  """Draws the losses, the learning rate and the metrics during training.

  Args:
    workdir: Folder of the run.

  Returns:
    The charts of what has been logged; none if nothing was.
  """
  series = _read(workdir / LOG)
  charts = []
  for title, y_label, names in (
    ("Loss", "loss", _LOSSES),
    ("Learning rate", "learning rate", {"learning_rate": ("", "a")}),
    ("Test metrics during training", "mean over categories", _METRICS),
  ):
    found = [(*names[n], series[n]) for n in names if n in series]
    if found:
      charts.append(progress_chart(title, y_label, found))
  return charts


def _read(path: pathlib.Path) -> dict[str, Curve]:
  """Returns each logged number over the steps; a cut line is left out."""
  if not path.is_file():
    return {}
  found: dict[str, list[tuple[float, float]]] = {}
  for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
    try:
      entry = json.loads(line)
      step = float(entry["step"])
    except (ValueError, TypeError, KeyError):
      continue
    for name, value in entry.items():
      if isinstance(value, int | float) and math.isfinite(value):
        found.setdefault(name, []).append((step, float(value)))
  return {name: _averaged(np.array(pairs)) for name, pairs in found.items()}


def _averaged(pairs: np.ndarray) -> Curve:
  """Averages neighbouring (step, value) pairs into MAX_POINTS points."""
  parts = np.array_split(pairs, min(MAX_POINTS, len(pairs)))
  x, y = np.array([part.mean(axis=0) for part in parts]).T
  return Curve(x, y)
