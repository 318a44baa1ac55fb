"""Prints the findings in a data set as tables and lists for people."""

import collections
import itertools
import textwrap
from collections.abc import Iterable, Mapping, Sequence

import rich.box
import rich.console
import rich.table
from rich.cells import cell_len
from rich.text import Text

from inp_former_jax.data.inspection.findings import Inspection, Size, size_text
from inp_former_jax.data.inspection.published import differences, find_published
from inp_former_jax.data.records import DEFECTIVE, NORMAL, Dataset, Record
from inp_former_jax.terminal import escaped, shortened

_UNUSED_SHOWN = 5  # folders
_EDGES = 2  # spaces beside a table, one on the left and one on the right
_BETWEEN = 2  # spaces between two columns

# Heading of a column -> (part of the data set, label of the images that count).
# The columns of `_ALWAYS` are shown even if all their numbers are 0.
_COLUMNS = {
  "train": ("train", NORMAL),
  "train\ndefect": ("train", DEFECTIVE),
  "vali-\ndation": ("validation", NORMAL),
  "test\nnormal": ("test", NORMAL),
  "test\ndefect": ("test", DEFECTIVE),
  "with\nmask": ("test", DEFECTIVE),
  "unla-\nbelled": ("unlabelled", None),
}
_SIZE = "image\nsize"
_ALWAYS = ("train", "test\nnormal", "test\ndefect", "with\nmask")


def print_inspection(
  inspection: Inspection,
  console: rich.console.Console,
  cautions: Sequence[str] = (),
) -> None:
  """Prints the tables, then remarks and every problem.

  Args:
    inspection: Findings of the inspection.
    console: The console to print to. Its width is kept, except by the names of
      files, which are never broken.
    cautions: Further remarks, a paragraph each.
  """

  def line(text: str) -> None:
    console.print(escaped(text), markup=False, highlight=False, soft_wrap=True)

  for table in tables_of_categories(inspection, console.width):
    console.print(table)
  kinds = table_of_kinds(inspection.dataset, console.width)
  if kinds.row_count:
    console.print(kinds)
  remarks = [
    textwrap.fill(
      text, console.width, break_long_words=False, break_on_hyphens=False
    )
    for text in (*_remarks(inspection), *cautions)
  ]
  if remarks:
    line("\n\n".join(remarks))
  by_kind = itertools.groupby(inspection.problems, lambda p: p.kind)
  for kind, problems in by_kind:
    texts = [problem.text for problem in problems]
    line(f"\n{kind}: {len(texts):,}")
    for text in texts:
      line(f"  {text}")
  line(f"\n{_summary(inspection)}")


def tables_of_categories(
  inspection: Inspection, width: int
) -> list[rich.table.Table]:
  """Makes a table of the number of images by category, and of their sum.

  Args:
    inspection: Findings of the inspection.
    width: Largest width of a table in characters.

  Returns:
    One table, or several with some of the columns each if not all fit.
  """
  names, columns = _columns_of_categories(inspection)
  name_width = _name_width(names, width)
  tables = []
  for headings in _that_fit(columns, width - _EDGES - name_width):
    table = _table(inspection.dataset.name if not tables else "")
    table.add_column("category", overflow="fold", width=name_width)
    for heading in headings:
      justify = "left" if heading == _SIZE else "right"
      table.add_column(heading, justify=justify, overflow="fold")
    for i, name in enumerate(names):
      if i and i == len(names) - 1:
        table.add_section()  # of the sum
      table.add_row(
        Text(escaped(name)), *(columns[heading][i] for heading in headings)
      )
    tables.append(table)
  return tables


def _columns_of_categories(
  inspection: Inspection,
) -> tuple[list[str], dict[str, list[str]]]:
  """Returns the names of the rows, and heading -> a cell for each row."""
  categories = _by_category(inspection.dataset)
  counts = {name: _counts(parts) for name, parts in categories.items()}
  no_sizes: collections.Counter[Size] = collections.Counter()
  sizes = {name: inspection.sizes.get(name, no_sizes) for name in counts}
  total = sum(counts.values(), collections.Counter())
  names = list(counts)
  all_counts, all_sizes = list(counts.values()), list(sizes.values())
  if len(names) > 1:
    names.append("total")
    all_counts.append(total)
    all_sizes.append(sum(sizes.values(), no_sizes))
  columns = {
    heading: [f"{count[heading]:,}" for count in all_counts]
    for heading in _COLUMNS
    if heading in _ALWAYS or total[heading]
  }
  commonest = [_commonest(counter) for counter in all_sizes]
  columns[_SIZE] = [size for size, _ in commonest]
  if any(len(counter) > 1 for counter in sizes.values()):
    columns["other\nsizes"] = [
      f"{counter.total() - number:,}"
      for counter, (_, number) in zip(all_sizes, commonest, strict=True)
    ]
  return names, columns


def _name_width(names: Iterable[str], width: int) -> int:
  """Returns the width of the first column: of all names, but at most half."""
  longest = max(map(cell_len, ("category", *names)))
  return max(min(longest, width // 2), 1)


def _that_fit(columns: Mapping[str, list[str]], room: int) -> list[list[str]]:
  """Splits columns into groups that are at most `room` wide, in order."""
  groups, used = [[]], 0
  for heading, cells in columns.items():
    needed = _BETWEEN + max(map(cell_len, (*heading.split("\n"), *cells)))
    if groups[-1] and used + needed > room:
      groups.append([])
      used = 0
    groups[-1].append(heading)
    used += needed
  return groups


def table_of_kinds(dataset: Dataset, width: int) -> rich.table.Table:
  """Makes a table of the number of defective test images of each kind.

  Args:
    dataset: The data set.
    width: Largest width of the table in characters.

  Returns:
    A table with a row for each category that has defective images.
  """
  kinds = {
    name: collections.Counter(
      record.defect for record in parts["test"] if record.label == DEFECTIVE
    )
    for name, parts in _by_category(dataset).items()
  }
  kinds = {name: counter for name, counter in kinds.items() if counter}
  table = _table("Defective test images")
  name_width = _name_width(kinds, width)
  table.add_column("category", overflow="fold", width=name_width)
  table.add_column("kinds of defect", overflow="fold")
  for name, counter in kinds.items():
    numbered = (f"{kind} {number:,}" for kind, number in counter.items())
    table.add_row(Text(escaped(name)), Text(escaped(", ".join(numbered))))
  return table


def _table(title: str) -> rich.table.Table:
  return rich.table.Table(
    title=Text(escaped(title)) if title else None,
    title_justify="left",
    box=rich.box.SIMPLE_HEAD,
    padding=(0, _BETWEEN - 1, 0, 0),  # the box adds one
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
    remarks.append(
      f"Image files that no record uses: {sum(inspection.unused.values()):,}, "
      f"in {shortened(folders, _UNUSED_SHOWN)}."
    )
  return remarks


def _summary(inspection: Inspection) -> str:
  number = len(inspection.problems)
  text = f"{number:,} problem{'' if number == 1 else 's'} found"
  if inspection.quick:
    text += "; only headers were read: no pixels, and no search for duplicates"
  return text + "."
