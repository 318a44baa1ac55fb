"""Prints the findings in a data set as tables and lists for people."""

import collections
import itertools
from collections.abc import Mapping, Sequence

import rich.box
import rich.console
import rich.table
from rich.text import Text

from inp_former_jax.data.inspection.findings import Inspection, Size, size_text
from inp_former_jax.data.inspection.published import differences, find_published
from inp_former_jax.data.records import DEFECTIVE, NORMAL, Dataset, Record

_UNUSED_SHOWN = 5  # folders

# Heading of a column -> (part of the data set, label of the images that count).
# The columns of `_ALWAYS` are shown even if all their numbers are 0.
_COLUMNS = {
  "train": ("train", NORMAL),
  "train\ndefective": ("train", DEFECTIVE),
  "vali-\ndation": ("validation", NORMAL),
  "test\nnormal": ("test", NORMAL),
  "test\ndefective": ("test", DEFECTIVE),
  "with\nmask": ("test", DEFECTIVE),
  "unla-\nbelled": ("unlabelled", None),
}
_ALWAYS = ("train", "test\nnormal", "test\ndefective", "with\nmask")


def print_inspection(
  inspection: Inspection, console: rich.console.Console
) -> None:
  """Prints the tables, then every problem.

  Args:
    inspection: What was found.
    console: The console to print to.
  """

  def line(text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)

  console.print(table_of_categories(inspection))
  kinds = table_of_kinds(inspection.dataset)
  if kinds.row_count:
    console.print(kinds)
  for text in _remarks(inspection):
    line(text)
  by_kind = itertools.groupby(inspection.problems, lambda p: p.kind)
  for kind, problems in by_kind:
    texts = [problem.text for problem in problems]
    line(f"\n{kind}: {len(texts):,}")
    for text in texts:
      line(f"  {text}")
  line(f"\n{_summary(inspection)}")


def table_of_categories(inspection: Inspection) -> rich.table.Table:
  """Makes a table of the number of images by category, and of their sum.

  Args:
    inspection: What was found.

  Returns:
    A table that is at most 80 columns wide if no name has over 20 letters.
  """
  dataset = inspection.dataset
  counts = {name: _counts(r) for name, r in _by_category(dataset).items()}
  total = sum(counts.values(), collections.Counter())
  headings = [h for h in _COLUMNS if h in _ALWAYS or total[h]]
  view = _table(dataset.name)
  view.add_column("category", overflow="fold", min_width=8)
  for heading in headings:
    view.add_column(heading, justify="right", no_wrap=True)
  view.add_column("image\nsize", no_wrap=True)
  others = any(len(sizes) > 1 for sizes in inspection.sizes.values())
  if others:
    view.add_column("other\nsizes", justify="right", no_wrap=True)

  def add(name: str, count: collections.Counter, sizes: collections.Counter):
    cells = [f"{count[heading]:,}" for heading in headings]
    size, number = _commonest(sizes)
    cells += [size, f"{sizes.total() - number:,}"] if others else [size]
    view.add_row(Text(name), *cells)

  empty = collections.Counter()
  for name, count in counts.items():
    add(name, count, inspection.sizes.get(name, empty))
  if len(counts) > 1:
    view.add_section()
    add("total", total, sum(inspection.sizes.values(), empty))
  return view


def table_of_kinds(dataset: Dataset) -> rich.table.Table:
  """Makes a table of the number of defective test images of each kind.

  Args:
    dataset: The data set.

  Returns:
    A table with a row for each category that has defective images.
  """
  view = _table("Defective test images")
  view.add_column("category", overflow="fold")
  view.add_column("kinds of defect", overflow="fold")
  for name, parts in _by_category(dataset).items():
    kinds = collections.Counter(
      r.defect for r in parts["test"] if r.label == DEFECTIVE
    )
    if kinds:
      numbered = (f"{kind} {number:,}" for kind, number in kinds.items())
      view.add_row(Text(name), Text(", ".join(numbered)))
  return view


def _table(title: str) -> rich.table.Table:
  return rich.table.Table(
    title=Text(title),
    title_justify="left",
    box=rich.box.SIMPLE_HEAD,
    padding=(0, 1, 0, 0),
    pad_edge=False,
  )


def _by_category(dataset: Dataset) -> dict[str, dict[str, list[Record]]]:
  """Returns category -> part of the data set -> records."""
  parts = ("train", "test", "validation", "unlabelled")
  result = {}
  for part in parts:
    for record in getattr(dataset, part):
      empty = {name: [] for name in parts}
      result.setdefault(record.category, empty)[part].append(record)
  return result


def _counts(parts: Mapping[str, Sequence[Record]]) -> collections.Counter:
  """Returns heading -> number of images, for one category."""
  counts = collections.Counter()
  for heading, (part, label) in _COLUMNS.items():
    records = [r for r in parts[part] if label in (None, r.label)]
    if heading == "with\nmask":
      records = [r for r in records if r.masks]
    counts[heading] = len(records)
  return counts


def _commonest(sizes: collections.Counter[Size]) -> tuple[str, int]:
  """Returns the commonest size and the number of images that have it."""
  if not sizes:
    return "-", 0
  ((size, number),) = sizes.most_common(1)
  return size_text(size), number


def _remarks(inspection: Inspection) -> list[str]:
  """Returns what is worth knowing but needs no fixing."""
  remarks = []
  published = find_published(inspection.dataset)
  if published and not differences(inspection.dataset, published):
    remarks.append(f"As many images as published: {published.name}.")
  if inspection.unused:
    folders = [f"{name} ({n:,})" for name, n in inspection.unused.items()]
    more = len(folders) - _UNUSED_SHOWN
    remarks.append(
      f"Image files that no record uses: {sum(inspection.unused.values()):,}, "
      "in "
      + ", ".join(folders[:_UNUSED_SHOWN])
      + (f", and {more:,} more folders" if more > 0 else "")
      + "."
    )
  return remarks


def _summary(inspection: Inspection) -> str:
  number = len(inspection.problems)
  text = f"{number:,} problem{'' if number == 1 else 's'} found"
  if inspection.quick:
    text += "; only headers were read: no pixels, and no search for duplicates"
  return text + "."
