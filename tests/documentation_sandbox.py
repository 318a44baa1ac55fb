"""A folder in which the commands of a document can be run in seconds."""

import os
import pathlib
import re
import subprocess
import sys
import time

from inp_former_jax import config_files
from tests.conftest import ROOT
from tests.data.layouts import layout_trees
from tests.documentation_blocks import Block, Command

# Appended to every command that trains, so that it takes seconds. Of two flags
# the later one wins.
_TRAINING_CUTS = (
  "--config.model.dtype=float32",
  "--config.data.resize=80",
  "--config.data.crop=70",
  "--config.batch_size=4",
  "--config.steps=2",
  "--config.evaluation.batch_size=4",
  "--config.evaluation.size=64",
  "--config.evaluation.grid_images=3",
  "--config.log.every_steps=1",
  "--config.log.tensorboard=False",
)
_ENCODER_CUTS = (
  "--config.model.encoder=dinov2reg_vit_femto_14",
  "--config.model.encoder_weights=random",
)
_BUNDLED = "demo_vit_tiny_14"  # an encoder that is there: no need to cut it
_BENCHMARK_CUTS = ("--rounds=1", "--seconds=0.1")
_SIZE_CUTS = (
  "--config.data.resize=80",
  "--config.data.crop=70",
  "--config.batch_size=4",
)
_TREES = {
  "mvtec": layout_trees.mvtec,
  "visa": layout_trees.visa,
  "realiad": layout_trees.realiad,
  "mvtec_loco": layout_trees.mvtec_loco,
}
# Documents that use the demo's workdir, which another document trains; here on
# images that need not be drawn first, unless the document names them.
_DEMO = "python -m inp_former_jax.main --config=demo --workdir=workdir/demo"
_ON_A_TREE = (
  f"{_DEMO} --config.data.layout=mvtec --config.data.root=/data/mvtec"
)
_PREPARED = {
  "docs/prediction.md": _DEMO,
  "docs/weights.md": _ON_A_TREE,
}


class Sandbox:
  """A folder with the data sets that the documents speak of."""

  def __init__(self, folder: pathlib.Path):
    self.folder = folder
    self.failures: list[str] = []
    for name in ("examples", "configs", "tests", "docs"):
      (folder / name).symlink_to(ROOT / name)
    for name, write in _TREES.items():
      write(folder / "data" / name)
    for root in (folder / "data" / "parts", folder / "parts"):
      write_parts(root)
    self._check_package()

  def _check_package(self) -> None:
    """Fails if `python` here would import the package of another checkout."""
    code = "import inp_former_jax; print(inp_former_jax.__file__)"
    found = self._start(["python", "-c", code]).stdout.strip()
    expected = ROOT / "inp_former_jax" / "__init__.py"
    assert found == str(expected), (
      f"python imports {found or 'no inp_former_jax'} instead of {expected}: "
      "run `pip install -e .` there, or set PYTHONPATH."
    )

  def prepare(self, document: str) -> None:
    """Trains what a document takes for granted.

    Args:
      document: The document's path, relative to the repository.
    """
    if document in _PREPARED:
      text = _PREPARED[document]
      self.run_command(Command(f"{document} (prepared by the test)", text))

  def run_block(self, block: Block) -> None:
    """Runs the commands of a shell block in turn, or a Python block whole.

    Args:
      block: A block that no comment marks.
    """
    if block.language == "sh":
      for command in block.commands():
        if not command.is_skipped():
          self.run_command(command)
    elif block.language == "python":
      script = self.folder / f"block_{block.line}.py"
      script.write_text(block.text)
      output = self._run(block.place, block.text, ["python", script.name])
      self._compare(block, output)

  def run_command(self, command: Command) -> None:
    """Runs a command, on the small data sets and with the cuts.

    Args:
      command: The command as it is in the document.
    """
    text = " ".join([command.text, *cuts(command)])
    text = re.sub(r"(?<![\w./])/data/", f"{self.folder}/data/", text)
    self._run(command.place, text, ["sh", "-c", text])

  def _compare(self, block: Block, output: str) -> None:
    """The comment behind the last `print` says what it prints."""
    expected = re.search(r"^print\(.*\)  # (.+)\n\Z", block.text, re.MULTILINE)
    printed = output.rstrip().rpartition("\n")[2]
    if expected and printed != expected[1]:
      self.failures.append(
        f"{block.place} says that {expected[1]!r} is printed, not {printed!r}"
      )

  def _run(self, place: str, text: str, arguments: list[str]) -> str:
    start = time.perf_counter()
    run = self._start(arguments)
    print(f"{time.perf_counter() - start:5.1f} s  {place}")
    if run.returncode:
      self.failures.append(
        f"{place}: exit status {run.returncode} of\n{text}\n"
        f"--- stdout\n{run.stdout[-3000:]}\n--- stderr\n{run.stderr[-3000:]}"
      )
    return run.stdout

  def _start(self, arguments: list[str]) -> subprocess.CompletedProcess:
    python = str(pathlib.Path(sys.executable).parent)
    return subprocess.run(
      arguments,
      cwd=self.folder,
      env=os.environ | {"PATH": python + os.pathsep + os.environ["PATH"]},
      stdin=subprocess.DEVNULL,
      capture_output=True,
      text=True,
      timeout=900,
    )


def cuts(command: Command) -> tuple[str, ...]:
  """Returns the flags that make a command quick; none if it is quick."""
  config = command.config()
  if command.module() == "inp_former_jax.benchmark":
    return _BENCHMARK_CUTS + (_SIZE_CUTS if config else ())
  if command.module() != "inp_former_jax.main" or config is None:
    return ()
  if "--mode=eval" in command.text or "inp-former eval" in command.text:
    return ()
  named = _BUNDLED in command.text
  if named or config_files.load_config(config).model.encoder == _BUNDLED:
    return _TRAINING_CUTS
  return _ENCODER_CUTS + _TRAINING_CUTS


def write_parts(root: pathlib.Path) -> None:
  """Writes a user's own images: normal/, defect/ and mask/."""
  for i in range(20):
    layout_trees.draw(root / "normal" / f"{i:02d}.png", i)
  for i in range(4):
    layout_trees.draw(root / "defect" / f"{i:02d}.png", 200 + i, True)
    layout_trees.mask(root / "mask" / f"{i:02d}.png")
