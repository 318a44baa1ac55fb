"""The findings in a data set: each kind of problem is provoked once."""

import collections
import io
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import rich.console
from PIL import Image

from inp_former_jax.data import __main__ as command
from inp_former_jax.data.inspection import (
  findings,
  published,
  tables,
)
from inp_former_jax.data.layouts.mvtec import read_mvtec
from inp_former_jax.data.records import NON_ZERO, Dataset, Record
from tests.conftest import ROOT
from tests.data.inspection.test_published import records_of

SIZE = (24, 16)  # width, height


def save(path: pathlib.Path, value=None, size=SIZE) -> pathlib.Path:
  """Saves a grey image of one value, or of noise that depends on the path."""
  rng = np.random.default_rng(list(str(path).encode()))
  pixels = rng.integers(0, 256, size[::-1], np.uint8)
  if value is not None:
    pixels = np.full(size[::-1], value, np.uint8)
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.fromarray(pixels).save(path)
  return path


@pytest.fixture
def root(tmp_path) -> pathlib.Path:
  """A data set of two categories without any problem."""
  root = tmp_path / "parts"
  for name in ("train/good/0", "train/good/1", "test/good/0", "test/bent/0"):
    save(root / "nut" / f"{name}.png")
  save(root / "nut/test/cut/0.png", size=(30, 30))
  save(root / "nut/ground_truth/bent/0_mask.png", 255)
  save(root / "nut/ground_truth/cut/0_mask.png", 255, size=(30, 30))
  save(root / "bolt/train/good/0.png", size=(8, 8))
  return root


def inspect(root, **options) -> findings.Inspection:
  return findings.inspect_dataset(
    read_mvtec(root), root, **({"threads": 2} | options)
  )


def problems(root, **options) -> list[tuple[str, str]]:
  return [(p.kind, p.text) for p in inspect(root, **options).problems]


def test_nothing_is_wrong(root):
  assert problems(root) == problems(root, quick=True) == []


def test_sizes(root):
  for quick in (False, True):
    sizes = inspect(root, quick=quick).sizes
    assert sizes == {"nut": {SIZE: 4, (30, 30): 1}, "bolt": {(8, 8): 1}}


def test_what_is_no_file_is_unreadable(root):
  os.mkfifo(root / "nut" / "train" / "good" / "x.png")
  (kind, text) = problems(root)[0]
  assert kind == findings.UNREADABLE
  assert text.startswith("nut/train/good/x.png: x.png is a named pipe")


@pytest.mark.parametrize("name", ["train/good/1", "test/bent/0"])
def test_damaged_image(root, name):
  path = root / "nut" / f"{name}.png"
  path.write_bytes(path.read_bytes()[:-40])
  ((kind, text),) = problems(root)
  assert kind == findings.UNREADABLE
  assert text.startswith(f"nut/{name}.png: ")
  assert problems(root, quick=True) == []  # the header is whole


def test_damaged_mask(root):
  path = root / "nut/ground_truth/bent/0_mask.png"
  path.write_bytes(path.read_bytes()[:-30])
  ((kind, text),) = problems(root)
  assert kind == findings.UNREADABLE
  assert text.startswith("nut/ground_truth/bent/0_mask.png: ")


@pytest.mark.parametrize("quick", [False, True])
def test_file_that_is_no_image(root, quick):
  (root / "nut/test/good/0.png").write_text("nothing")
  (root / "nut/ground_truth/bent/0_mask.png").write_bytes(b"")
  assert problems(root, quick=quick) == [
    (findings.UNREADABLE, f"nut/{path}: cannot identify image file '{name}'")
    for path, name in (
      ("ground_truth/bent/0_mask.png", "0_mask.png"),
      ("test/good/0.png", "0.png"),
    )
  ]


def test_file_that_is_not_there(tmp_path):
  record = Record(tmp_path / "a.png", "nut", 0, "good")
  found = findings.inspect_dataset(Dataset("", (record,), ()), tmp_path)
  (problem,) = found.problems
  assert problem.text == "a.png: No such file or directory"


def test_image_in_training_and_in_testing(root):
  content = (root / "nut/test/good/0.png").read_bytes()
  (root / "bolt/train/good/0.png").write_bytes(content)
  assert problems(root) == [
    (findings.DUPLICATE, "bolt/train/good/0.png = nut/test/good/0.png")
  ]
  assert problems(root, quick=True) == []


def test_images_twice_in_training_or_of_equal_size_only(root):
  content = (root / "nut/train/good/0.png").read_bytes()
  (root / "nut/train/good/1.png").write_bytes(content)
  other = content[:-1] + bytes([content[-1] ^ 1])
  (root / "nut/train/good/2.png").write_bytes(other)
  save(root / "nut/test/good/0.png").write_bytes(content[::-1])
  kinds = [kind for kind, _ in problems(root)]
  assert kinds == [findings.UNREADABLE]  # that which is back to front


def test_missing_mask(root):
  save(root / "nut/test/bent/1.png")
  for quick in (False, True):
    assert problems(root, quick=quick) == [
      (findings.NO_MASK, "nut/test/bent/1.png")
    ]


def test_category_without_any_mask(root):
  for kind in ("bent", "cut"):
    (root / f"nut/ground_truth/{kind}/0_mask.png").unlink()
  assert problems(root) == [(findings.NO_MASK, "nut: none of its 2 has one")]


@pytest.mark.parametrize("quick", [False, True])
def test_mask_of_another_size(root, quick):
  save(root / "nut/ground_truth/bent/0_mask.png", 255, size=(12, 8))
  text = "nut/ground_truth/bent/0_mask.png: 12x8, its image 24x16"
  assert problems(root, quick=quick) == [(findings.MASK_SIZE, text)]


def test_empty_mask(root):
  save(root / "nut/ground_truth/bent/0_mask.png", 0)
  assert problems(root) == [
    (findings.EMPTY_MASK, "nut/ground_truth/bent/0_mask.png")
  ]
  assert problems(root, quick=True) == []


def test_mask_of_class_numbers(root):
  save(root / "nut/ground_truth/bent/0_mask.png", 3)
  text = "nut/ground_truth/bent/0_mask.png: up to 3 of 255"
  assert problems(root) == [(findings.FAINT_MASK, text)]


@pytest.mark.parametrize(("value", "empty"), [(3, False), (0, True)])
@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "1"])
def test_masks_whose_values_are_class_numbers(tmp_path, mode, value, empty):
  image, mask = save(tmp_path / "a.png"), tmp_path / "m.png"
  marked = Image.new("L", SIZE, value)
  if mode == "P":
    marked.putpalette([0] * 768)  # all black: only the numbers count
    marked.save(mask)
  else:
    marked.point(lambda v: 255 * bool(v)).convert(mode).save(mask)
  record = Record(image, "nut", 1, "bent", (mask,), NON_ZERO)
  found = findings.inspect_dataset(Dataset("", (), (record,)), tmp_path)
  kinds = [problem.kind for problem in found.problems]
  assert kinds == [findings.EMPTY_MASK] * empty


def test_validation_and_unlabelled_images_are_read(tmp_path):
  names = ("train", "validation", "unlabelled")
  parts = {
    name: (Record(tmp_path / f"{name}.png", "nut", 0, "good"),)
    for name in names
  }
  for name in names:
    (tmp_path / f"{name}.png").touch()
  dataset = Dataset("parts", test=(), **parts)
  found = findings.inspect_dataset(dataset, tmp_path)
  assert [p.text.partition(":")[0] for p in found.problems] == [
    f"{name}.png" for name in names
  ]
  text = printed(found)
  assert "vali-" in text and "unla-" in text


def test_files_of_no_record(root):
  save(root / "nut/ground_truth/bent/9_mask.png", 255)
  save(root / "notes/deep/a.png")
  save(root / ".hidden/a.png")
  found = inspect(root)
  assert found.problems == ()
  assert found.unused == {"notes/deep": 1, "nut/ground_truth/bent": 1}
  assert "Image files that no record uses: 2, in notes/deep (1)" in printed(
    found
  )
  assert inspect(root, whole=False).unused == {}


def test_copy_that_lacks_files(tmp_path):
  for name in published.PUBLISHED[1].categories:
    save(tmp_path / name / "train/good/0.png")
  texts = [text for _, text in problems(tmp_path)]
  assert texts[0] == "MVTec LOCO AD: 5 train images instead of 1,772"
  assert problems(tmp_path, whole=False) == []


def printed(found, width=80) -> str:
  console = rich.console.Console(file=io.StringIO(), width=width)
  tables.print_inspection(found, console)
  return console.file.getvalue()


def test_table(root):
  save(root / "nut/test/bent/1.png", size=(40, 40))
  rows = [line.split() for line in printed(inspect(root)).splitlines()]
  assert ["bolt", "1", "0", "0", "0", "8x8", "0"] in rows
  assert ["nut", "2", "1", "3", "2", "24x16", "2"] in rows
  assert ["total", "3", "1", "3", "2", "24x16", "3"] in rows
  assert ["nut", "bent", "2,", "cut", "1"] in rows
  assert ["1", "problem", "found."] in rows


def test_names_are_not_read_as_markup(tmp_path):
  save(tmp_path / "[red]/train/good/[b].png").write_text("")
  text = printed(inspect(tmp_path))
  assert "[red]/train/good/[b].png: " in text
  assert "\n [red] " in text


def test_many_kinds_fit_80_columns(tmp_path):
  dataset = records_of(published.PUBLISHED[-1])
  test = tuple(
    Record(r.image, r.category, 1, f"kind_of_defect_{i % 9}")
    for i, r in enumerate(dataset.test)
  )
  dataset = Dataset("", dataset.train, test)
  sizes = {c: {(1024, 1024): 9, (8, 8): 1} for c in dataset.categories}
  sizes = {c: collections.Counter(s) for c, s in sizes.items()}
  found = findings.Inspection(dataset, sizes, (), {}, False)
  text = printed(found)
  assert max(map(len, text.splitlines())) <= 80
  assert "…" not in text
  assert "rolled_strip_base" in text


def test_command(root, capsys):
  arguments = ["--layout=mvtec", f"--root={root}"]
  assert command.main(arguments) == 0
  assert "0 problems found." in capsys.readouterr().out
  save(root / "nut/ground_truth/bent/0_mask.png", 0)
  assert command.main(arguments) == 1
  assert command.main([*arguments, "--quick"]) == 0
  assert "only headers were read" in capsys.readouterr().out
  assert command.main([*arguments, "--categories=bolt"]) == 0
  out = capsys.readouterr().out
  assert "bolt" in out and "nut" not in out


@pytest.mark.parametrize(
  ("arguments", "error"),
  [
    (["--root={root}/x"], "does not exist"),
    (["--root={root}", "--categories=nut,bold"], "Did you mean 'bolt'?"),
    (["--root="], "--root is empty: set --root=FOLDER"),
    (
      ["--root={root}", "--layout=btad"],
      "mvtec (it has bolt/train/good): use ",
    ),
    (["--root={root}", "--layout=folder"], ": use --layout=mvtec."),
  ],
)
def test_command_without_a_data_set(root, capsys, arguments, error):
  arguments = [argument.format(root=root) for argument in arguments]
  assert command.main(["--layout=mvtec", *arguments]) == 2
  out, err = capsys.readouterr()
  assert out == "" and len(err.splitlines()) == 1 and error in err


@pytest.mark.parametrize(
  ("argument", "error"),
  [
    ("--layout=demo", "invalid choice: 'demo'"),
    ("--threads=0", "0 is not above 0"),
    ("--threads=x", "invalid"),
  ],
)
def test_bad_arguments(root, capsys, argument, error):
  with pytest.raises(SystemExit) as caught:
    command.main(["--layout=mvtec", f"--root={root}", argument])
  assert caught.value.code == 2
  assert error in capsys.readouterr().err


def test_command_line(root):
  (root / "nut/train/good/bad.png").touch()
  module = [sys.executable, "-m", "inp_former_jax.data"]
  result = subprocess.run(
    [*module, "--layout=mvtec", f"--root={root}", "--threads=2"],
    cwd=ROOT,
    env=os.environ | {"PYTHONIOENCODING": "utf-8"},
    capture_output=True,
    text=True,
    timeout=120,
  )
  assert result.returncode == 1, result.stderr
  assert result.stderr == ""
  assert "1 problem found." in result.stdout
  assert "nut/train/good/bad.png: " in result.stdout


@pytest.mark.skipif(sys.platform != "linux", reason="refused by the system")
def test_a_name_that_is_not_utf_8_is_an_error_in_a_line(root, capsys):
  path = os.path.join(os.fsencode(root / "nut/train/good"), b"bad-\xff.png")
  with open(path, "wb"):
    pass
  assert command.main(["--layout=mvtec", f"--root={root}"]) == 2
  error = capsys.readouterr().err
  assert error.count("\n") == 1 and "bytes that are not UTF-8" in error
