"""Prints the metrics of an evaluation as tables that fit the terminal."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import rich.box
import rich.console
import rich.measure
import rich.table
from rich.text import Text

from inp_former_jax.evaluation.results import (
  COLUMN_GROUPS,
  CategoryResult,
  Evaluation,
)
from inp_former_jax.terminal import escaped

Rows = Mapping[str, Mapping[str, float]]


def print_tables(
  result: Evaluation, paper_rows: Rows, console: rich.console.Console
) -> None:
  """Prints the metrics in one table, or in several where one is too wide.

  No number or name is ever cut: a terminal that is too narrow even for the
  smallest table wraps its lines.

  Args:
    result: The evaluation of the test set.
    paper_rows: The paper's results for these settings, by title.
    console: The terminal or file to print to.
  """
  width = console.width
  for table in make_tables(result, paper_rows, width):
    console.width = max(width, natural_width(table))
    console.print(table)
  console.width = width


def make_tables(
  result: Evaluation, paper_rows: Rows, width: int
) -> list[rich.table.Table]:
  """Lays out the metrics per category, and their means, in per cent.

  Args:
    result: The evaluation of the test set.
    paper_rows: The paper's results for these settings, by title.
    width: Width of the terminal in characters.

  Returns:
    One table if it fits, or else the image, sample and pixel metrics in as few
    tables as possible. The caption of the last one says what was left out of
    which metric.
  """
  kinds = [kind for kind, names in _groups(result).items() if names]
  packed: list[list[str]] = []
  for kind in kinds:
    together = [*packed[-1], kind] if packed else [kind]
    if packed and natural_width(_table(result, paper_rows, together)) <= width:
      packed[-1] = together
    else:
      packed.append([kind])
  tables = [_table(result, paper_rows, kinds) for kinds in packed]
  notes = _notes(result)
  tables[-1].caption = None if notes is None else Text(escaped(notes))
  tables[-1].caption_justify = "left"
  return tables


def natural_width(table: rich.table.Table) -> int:
  """Returns the width, in characters, that a table needs to be shown whole."""
  console = rich.console.Console(width=10_000)
  return rich.measure.Measurement.get(console, console.options, table).maximum


def _groups(result: Evaluation) -> dict[str, list[str]]:
  """Returns the metrics that the result has, by their kind."""
  return {
    kind: [name for name in names if name in result.columns]
    for kind, names in COLUMN_GROUPS.items()
  }


def _table(
  result: Evaluation, paper_rows: Rows, kinds: Sequence[str]
) -> rich.table.Table:
  groups = _groups(result)
  names = [name for kind in kinds for name in groups[kind]]
  title = f"Test set after {result.step:,} steps, in %"
  view = rich.table.Table(
    title=title,
    box=rich.box.SIMPLE_HEAD,
    padding=(0, 1, 0, 0),
    pad_edge=False,
  )
  view.add_column("category", no_wrap=True)
  view.add_column("normal +\ndefective", justify="right", no_wrap=True)
  for name in names:
    view.add_column(result.columns[name], justify="right", no_wrap=True)
  for title, counts, metrics in _rows(result):
    view.add_row(Text(escaped(title)), counts, *_cells(metrics, names))
  if len(result.categories) > 1:
    view.add_section()
    for source, mean in result.source_means.items():
      view.add_row(Text(escaped(f"mean of {source}")), "", *_cells(mean, names))
    view.add_row("mean", "", *_cells(result.mean, names))
  for title, row in paper_rows.items():
    if any(name in row for name in names):
      view.add_row(Text(escaped(title)), "", *_cells(row, names), style="dim")
  return view


def _rows(
  result: Evaluation,
) -> Iterator[tuple[str, str, Mapping[str, float]]]:
  """Yields title, counts and metrics of each category."""
  for name, category in result.categories.items():
    mark = " *" if category.without_mask else ""
    yield name + mark, _counts(category), category.metrics


def _counts(category: CategoryResult) -> str:
  return f"{category.normal} + {category.defective}"


def _cells(metrics: Mapping[str, float], names: Iterable[str]) -> list[str]:
  values = [metrics.get(name, np.nan) for name in names]
  return ["-" if np.isnan(v) else f"{100 * v:.1f}" for v in values]


def _notes(result: Evaluation) -> str | None:
  """Returns notes on what the table leaves out, or None if nothing."""
  without = [
    f"{name} {category.without_mask} of {category.defective}"
    for name, category in result.categories.items()
    if category.without_mask
  ]
  notes = []
  if without:
    notes.append(
      "* Defective images without a mask count in the image metrics and not "
      f"in the pixel metrics: {', '.join(without)}."
    )
  if result.untested:
    notes.append(f"Without test images: {', '.join(result.untested)}.")
  return "\n".join(notes) or None
