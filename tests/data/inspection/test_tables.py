"""The tables of a data set: every name and number whole, at any width."""

import collections
import io
import pathlib

import pytest
import rich.console
from rich.cells import cell_len

from inp_former_jax.data.inspection import findings, tables
from inp_former_jax.data.records import Dataset, Record

NAMES = ("realiad/rolled_strip_base", "visa/macaroni1", "a" * 70, "電池" * 9)
WIDTHS = (40, 60, 80, 100)


def inspection(names, parts=("train", "test")) -> findings.Inspection:
  """A data set with images in these parts, of several sizes."""

  def records():
    kinds = [(0, "good"), *((1, f"kind_of_defect_{i}") for i in range(12))]
    return tuple(
      Record(
        pathlib.Path(f"{i}.png"),
        name,
        label,
        kind,
        source=name.partition("/")[0] if "/" in name else "",
      )
      for name in names
      for label, kind in kinds
      for i in range(1 if label else 1234)
    )

  dataset = Dataset(
    "data " * 30,
    **{"train": (), "test": ()} | {part: records() for part in parts},
  )
  sizes = {
    name: collections.Counter({(12000, 10000): 9000, (8, 8): 12345})
    for name in names
  }
  return findings.Inspection(dataset, sizes, (), {}, False)


def printed(found, width, cautions=()) -> list[str]:
  console = rich.console.Console(file=io.StringIO(), width=width)
  tables.print_inspection(found, console, cautions)
  return console.file.getvalue().splitlines()


ALL = ("train", "test", "validation", "unlabelled")


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("parts", [("train",), ("train", "test"), ALL])
def test_no_ellipsis_at_any_width(width, parts):
  found = inspection(NAMES, parts)
  lines = printed(found, width)
  assert "…" not in "".join(lines)
  assert all(cell_len(line) <= width for line in lines)
  words = " ".join(lines).split()
  for part in parts:
    heading = {"validation": "vali-", "unlabelled": "unla-"}.get(part, part)
    assert heading in words
  assert words.count("8x8") == len(NAMES) + 1  # and the total
  assert words.count("9,000") == len(NAMES)
  assert words.count("36,000") == 1


@pytest.mark.parametrize("width", WIDTHS)
def test_rows_are_whole_at_any_width(width):
  """Each number stands in a line with its category."""
  name = "rolled_strip_base"
  rows = [line.split() for line in printed(inspection([name]), width)]
  cells = [cell for row in rows if row[:1] == [name] for cell in row[1:]]
  numbers = ["1,234", "12", "1,234", "12", "0", "8x8", "9,000"]
  assert cells[: len(numbers)] == numbers


@pytest.mark.parametrize(("width", "number"), [(40, 3), (60, 2), (80, 1)])
def test_columns_that_do_not_fit_go_into_further_tables(width, number):
  found = inspection(["rolled_strip_base"])
  made = tables.tables_of_categories(found, width)
  assert len(made) == number
  assert all(table.columns[0].header == "category" for table in made)
  headings = [c.header for table in made for c in table.columns[1:]]
  assert len(headings) == len(set(headings)) == 7


@pytest.mark.parametrize("width", WIDTHS)
def test_paragraphs_keep_the_width_and_never_break_a_name(width):
  name = "folder/" * 20 + "a-b.jpg"
  text = f"Warning: a file, e.g. {name}. " + "Many more words than fit. " * 9
  lines = printed(inspection(["nut"]), width, [text, "The end."])
  assert sum(name in line for line in lines) == 1
  assert all(len(line) <= width for line in lines if name not in line)
  end = lines.index("The end.")
  assert lines[end - 1] == ""
