"""Names that would control the terminal they are printed on."""

import io

import pytest
import rich.console

from inp_former_jax import arguments
from inp_former_jax.data.__main__ import main as inspect
from inp_former_jax.data.inspection.findings import inspect_dataset
from inp_former_jax.data.inspection.tables import print_inspection
from inp_former_jax.data.layouts.registry import read_layout
from inp_former_jax.terminal import escaped, shortened
from inp_former_jax.training.progress import announce
from tests.data.layouts import layout_trees

EVIL = "\x1b[2J\x1b]0;owned\x07\x9b31m"


@pytest.mark.parametrize(
  "text, expected",
  [
    ("Größe 部品 [red]", "Größe 部品 [red]"),
    ("a\nb\tc", "a\nb\tc"),
    (EVIL, r"\x1b[2J\x1b]0;owned\x07\x9b31m"),
    ("\r\b\x7f\u202e\udcff", r"\r\x08\x7f\u202e\udcff"),
  ],
)
def test_what_is_printed(text, expected):
  assert escaped(text) == expected


@pytest.mark.parametrize(
  "items, separator, expected",
  [
    ([], ", ", ""),
    (["a", "b"], ", ", "a, b"),
    (["a", "b", "c"], ", ", "a, b and 1 more"),
    (range(2000), ", ", "0, 1 and 1,998 more"),
    (["a: 1, 2", "b: 3", "c: 4"], "; ", "a: 1, 2; b: 3; and 1 more"),
  ],
)
def test_a_long_list_is_shortened(items, separator, expected):
  assert shortened(items, 2, separator) == expected


def clean(text: str) -> bool:
  return escaped(text) == text and "x1b" in text


def test_an_error_of_a_command(capsys):
  def fail():
    raise ValueError(f"{EVIL} is wrong")

  assert arguments.run(fail) == arguments.FAILED
  assert clean(capsys.readouterr().err)


def test_a_line_of_a_run(capsys):
  announce(f"Category 1 of 1: {EVIL}")
  assert clean(capsys.readouterr().out)


@pytest.mark.parametrize("name", [EVIL, "nut"])
def test_the_report_on_a_data_set(tmp_path, capsys, name):
  root = tmp_path / EVIL.replace("/", "")
  category = root / name
  layout_trees.draw(category / "train/good/0.png", 1)
  (category / "train" / "good" / "1.png").touch()
  # Names of categories are refused; of folders above them, they are shown.
  code = inspect(["--layout=mvtec", f"--root={root}"])
  found = capsys.readouterr()
  assert code == (2 if name == EVIL else 1)
  assert clean(found.out + found.err)


def test_names_are_no_markup_in_the_report(tmp_path):
  root = tmp_path / "[link=http:x]parts"
  layout_trees.draw(root / "[bold]nut" / "train/good/[red]0.png", 1)
  (root / "[bold]nut" / "train/good/[red]1.png").touch()
  output = io.StringIO()
  console = rich.console.Console(file=output, force_terminal=True, width=100)
  dataset = read_layout("mvtec", root)
  print_inspection(inspect_dataset(dataset, root), console)
  for name in ("[link=http:x]parts", "[bold]nut", "[red]1.png"):
    assert name in output.getvalue()
