"""Writes report.html, one page that holds all that it shows."""

import dataclasses
import functools
import pathlib
import urllib.parse
from collections.abc import Mapping, Sequence

import jinja2
import numpy as np

from inp_former_jax.atomic import replacing
from inp_former_jax.evaluation import figures
from inp_former_jax.evaluation.html_report import charts, pictures, sections
from inp_former_jax.evaluation.html_report.training_log import training_charts
from inp_former_jax.evaluation.inp_figure import InpFigure
from inp_former_jax.evaluation.results import COLUMN_GROUPS, Evaluation
from inp_former_jax.inference.calibration import ALL
from inp_former_jax.inference.colours import ColourScale

REPORT = "report.html"
MAX_INP_STRIP = 80_000  # bytes
OPEN_SECTIONS = 3  # with more categories, all are closed at first
_METHODS = {"rate": "normal images alone", "f1": "largest F1"}


@dataclasses.dataclass(frozen=True)
class Cell:
  """A cell of a table that can be sorted.

  Attributes:
    text: What is shown.
    value: What is sorted by; empty goes to the end.
  """

  text: str
  value: str | float = ""


@dataclasses.dataclass(frozen=True)
class Row:
  """A row of the table of results.

  Attributes:
    title: Its name.
    address: What the name links to; empty for no link.
    cells: Its cells.
  """

  title: str
  address: str
  cells: Sequence[Cell]


def write_page(
  path: pathlib.Path,
  result: Evaluation,
  *,
  paper_rows: Mapping[str, Mapping[str, float]],
  settings: Mapping[str, object],
  inps: InpFigure | None,
) -> None:
  """Writes the page of an evaluation.

  Args:
    path: The HTML file to write, in the folder of the run, whose log of the
      training is shown.
    result: The evaluation of the test set.
    paper_rows: The paper's results for these settings, by title.
    settings: The settings of the run, by name.
    inps: The pictures of the INPs, if the model has any.
  """
  parts = sections.make_sections(result)
  content = {
    "title": f"{path.parent.name}: evaluation after {result.step:,} steps",
    "result": result,
    "columns": _columns(result),
    "rows": _rows(result, path.parent),
    "footer": _footer(result, paper_rows),
    "notes": _notes(result),
    "thresholds": _thresholds(result),
    "overview": _overview(result),
    "training": training_charts(path.parent),
    "sections": parts,
    "open_sections": len(parts) <= OPEN_SECTIONS,
    "inps": inps,
    "inp_strips": _inp_strips(inps),
    "gradient": _gradient(),
    "settings": settings,
    "chart_size": (charts.WIDTH, charts.HEIGHT),
    "chart_box": (charts.LEFT, charts.RIGHT, charts.TOP, charts.BOTTOM),
  }
  text = _template().render(content)
  with replacing(path) as partial:
    # Names of files may hold bytes that are no UTF-8.
    partial.write_text(text, encoding="utf-8", errors="replace")


def _gradient() -> str:
  """Returns the colours of the maps, as CSS lists them."""
  colours = figures.heat(np.linspace(0, 1, 17)[None], ColourScale(0.0, 1.0))[0]
  return ", ".join(f"rgb({r} {g} {b})" for r, g, b in colours)


@functools.cache
def _template() -> jinja2.Template:
  environment = jinja2.Environment(
    loader=jinja2.PackageLoader(__name__.rpartition(".")[0]),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
  )
  return environment.get_template("report.html")


def _names(result: Evaluation) -> list[str]:
  return [
    name
    for names in COLUMN_GROUPS.values()
    for name in names
    if name in result.columns
  ]


def _columns(result: Evaluation) -> list[str]:
  return [result.columns[name].replace("\n", " ") for name in _names(result)]


def _rows(result: Evaluation, workdir: pathlib.Path) -> list[Row]:
  rows = []
  for position, (name, category) in enumerate(result.categories.items()):
    address = ""
    if result.records:
      address = f"#{sections.anchor(position)}"
    elif (workdir / name / REPORT).is_file():
      address = f"{urllib.parse.quote(name)}/{REPORT}"
    counts = [Cell(str(n), n) for n in (category.normal, category.defective)]
    cells = _cells(category.metrics, result)
    mark = " *" if category.without_mask else ""
    rows.append(Row(name + mark, address, [*counts, *cells]))
  return rows


def _footer(
  result: Evaluation, paper_rows: Mapping[str, Mapping[str, float]]
) -> list[Row]:
  """Returns the rows that are not sorted: means, and the paper's results."""
  means = {f"mean of {s}": m for s, m in result.source_means.items()}
  found = means | {"mean": result.mean} | dict(paper_rows)
  none = [Cell(""), Cell("")]
  return [
    Row(title, "", [*none, *_cells(metrics, result)])
    for title, metrics in found.items()
  ]


def _cells(metrics: Mapping[str, float], result: Evaluation) -> list[Cell]:
  values = [metrics.get(name, np.nan) for name in _names(result)]
  return [
    Cell("–") if np.isnan(v) else Cell(f"{100 * v:.1f}", float(v))
    for v in values
  ]


def _notes(result: Evaluation) -> list[str]:
  notes = []
  without = sum(c.without_mask for c in result.categories.values())
  if without:
    notes.append(
      f"* {without} defective images without a mask count in the image metrics "
      "and not in the pixel metrics."
    )
  if result.untested:
    notes.append(f"Without test images: {', '.join(result.untested)}.")
  return notes


def _overview(result: Evaluation) -> list[charts.Chart]:
  """Draws the scores of all categories together, if there are several."""
  if result.image_scores is None or len(result.categories) < 2:
    return []
  labels = np.array([r.label for r in result.records])
  thresholds = sections.thresholds_of(result, ALL)
  return [
    charts.density_chart(
      "Scores of all categories",
      result.image_scores[labels == 0],
      result.image_scores[labels == 1],
      None if thresholds is None else thresholds.image,
    )
  ]


def _thresholds(result: Evaluation) -> list[list[str]]:
  """Returns a row of texts for the thresholds of each category."""
  if result.calibration is None:
    return []
  rows = []
  for category, evidence in result.calibration.evidence.items():
    thresholds = result.calibration.thresholds_of(category)
    missed = evidence.miss_rate
    rows.append(
      [
        category or "whole model",
        f"{thresholds.image:.4g}",
        f"{thresholds.pixel:.4g}",
        _METHODS.get(evidence.method, evidence.method),
        f"{evidence.normal} + {evidence.defective}",
        _rate(evidence.image_rate, evidence.image_interval),
        _rate(evidence.pixel_rate, evidence.pixel_interval),
        "–" if missed is None else f"{100 * missed:.3g} %",
      ]
    )
  return rows


def _rate(rate: float, interval: tuple[float, float]) -> str:
  low, high = (100 * end for end in interval)
  return f"{100 * rate:.3g} % ({low:.3g} to {high:.3g} %)"


def _inp_strips(inps: InpFigure | None) -> list[tuple[str, str]]:
  """Returns title and address of the strip of each image of the figure."""
  if inps is None:
    return []
  side = pictures.side_for(MAX_INP_STRIP, len(inps.headings))
  return [
    (
      row.title,
      pictures.data_address(pictures.strip(row.pictures, side), MAX_INP_STRIP),
    )
    for row in inps.rows
  ]
