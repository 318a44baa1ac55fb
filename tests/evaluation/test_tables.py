"""The tables of an evaluation: readable at any width."""

import io

import pytest
import rich.console

from inp_former_jax.evaluation import tables
from inp_former_jax.evaluation.results import (
  COLUMNS,
  SAMPLE_COLUMNS,
  CategoryResult,
  Evaluation,
)

LONGEST = "rolled_strip_base"  # of all categories of the public data sets


def evaluation(*names: str, value=1.0, samples=False, **fields) -> Evaluation:
  columns = COLUMNS | (SAMPLE_COLUMNS if samples else {})
  metrics = dict.fromkeys(columns, value)
  categories = {n: CategoryResult(metrics, 1260, 1500, 0) for n in names}
  return Evaluation(30_000, categories, metrics, **fields)


def shown(result: Evaluation, paper_rows=None, width=120) -> str:
  console = rich.console.Console(file=io.StringIO(), width=width)
  tables.print_tables(result, paper_rows or {}, console)
  return console.file.getvalue()


MVTEC = evaluation("bottle", "metal_nut", "toothbrush")
REAL_IAD = evaluation("zipper", LONGEST, samples=True)
SUPER_MULTI_CLASS = evaluation(
  *("mvtec/metal_nut", "visa/chewinggum", f"realiad/{LONGEST}"),
  samples=True,
  source_means={
    name: dict.fromkeys(COLUMNS, 0.5) for name in ("mvtec", "visa", "realiad")
  },
)
PAPER = {"paper, ViT-B, realiad": {"image_auroc": 0.898}}


@pytest.mark.parametrize("width", [40, 80, 100, 160])
@pytest.mark.parametrize(
  "result, paper_rows",
  [(MVTEC, {}), (REAL_IAD, {}), (SUPER_MULTI_CLASS, PAPER)],
  ids=["mvtec", "realiad", "super_multi_class"],
)
def test_every_number_and_name_is_whole_at_any_width(result, paper_rows, width):
  text = shown(result, paper_rows, width)
  assert "\u2026" not in text and "..." not in text
  if width >= 80:
    assert max(map(len, text.splitlines())) <= width
  for name, category in result.categories.items():
    rows = [line.split() for line in text.splitlines() if name in line]
    cells = [cell for row in rows for cell in row[4:]]
    assert cells == ["100.0"] * len(category.metrics)
  for title in [*result.source_means, *paper_rows, "mean"]:
    assert title in text


def test_one_table_where_it_fits():
  assert len(tables.make_tables(MVTEC, {}, 80)) == 1
  assert len(tables.make_tables(SUPER_MULTI_CLASS, {}, 160)) == 1
  assert len(tables.make_tables(SUPER_MULTI_CLASS, {}, 80)) > 1


def test_undefined_metrics_and_missing_masks_are_shown():
  metrics = dict.fromkeys(COLUMNS, 0.91234)
  metrics["pixel_ap"] = float("nan")
  text = shown(
    Evaluation(
      3,
      {
        "bolt": CategoryResult(metrics, 5, 3, 0),
        "nut": CategoryResult(metrics, 4, 2, 1),
        "pin": CategoryResult(metrics, 4, 2, 2),
      },
      dict.fromkeys(COLUMNS, 0.5),
    )
  )
  assert "91.2" in text and " - " in text and "5 + 3" in text
  assert "bolt *" not in text and "nut *" in text and "pin *" in text
  assert "nut 1 of 2, pin 2 of 2" in " ".join(text.split())
  assert "mean" in text


def test_names_are_shown_as_they_are():
  result = evaluation("bolt[m8]", "bolt[red]", untested=("nut[m8]",))
  text = shown(result)
  for name in ("bolt[m8]", "bolt[red]", "nut[m8]"):
    assert name in text


def test_the_papers_row_is_shown():
  text = shown(evaluation("bolt"), {"paper, ViT-B": {"image_auroc": 0.997}})
  (row,) = [line for line in text.splitlines() if "paper, ViT-B" in line]
  assert row.split()[-7:] == ["99.7", *6 * ["-"]]


def test_categories_without_test_images_are_named():
  result = evaluation("bolt", untested=("nut",))
  assert "Without test images: nut." in shown(result)
