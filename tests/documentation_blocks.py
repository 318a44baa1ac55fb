"""What the documents hold: blocks of code, commands, code spans, links."""

import dataclasses
import pathlib
import re

from inp_former_jax.__main__ import SUB_COMMANDS
from tests.conftest import ROOT

DOCUMENTS = [
  ROOT / "README.md",
  ROOT / "CONTRIBUTING.md",
  *sorted((ROOT / "docs").glob("*.md")),
  *sorted((ROOT / "inp_former_jax" / "assets").glob("*.md")),
]
LANGUAGES = {"sh", "python", "yaml", "bibtex", ""}  # "": trees of folders
BY_CI = "run by .ci/run"  # the comment before a block that .ci/run runs
# Commands of unmarked blocks that are not run, by how they start.
SKIPPED = {
  "pip install ": "the environment of the tests is installed already, and the "
  "tests must not change it",
}
# Other programs' lines, whose flags are not ours.
FOREIGN = ("#SBATCH ", "gcloud ")
_FENCE = re.compile(r"```(.*)")
_MARK = re.compile(r"<!-- (needs: \S.*|run by \.ci/run) -->")


@dataclasses.dataclass(frozen=True)
class Command:
  """A command of a document.

  Attributes:
    place: The document and the line on which the command begins.
    text: The command, lines that end in a backslash joined.
  """

  place: str
  text: str

  def is_skipped(self) -> bool:
    """Returns whether the command is of a kind that is never run."""
    return self.text.startswith(tuple(SKIPPED))

  def module(self) -> str | None:
    """Returns the module that the command runs, if it runs one."""
    found = re.search(r"\bpython -m ([\w.]+)", self.text)
    if found:
      return found[1]
    found = re.search(r"(?:^|\s)inp-former ([a-z]\w*)", self.text)
    if found and found[1] in SUB_COMMANDS:
      return SUB_COMMANDS[found[1]].module
    return found and f"inp-former {found[1]}"

  def config(self) -> str | None:
    """Returns the config that the command names, if it names one."""
    found = re.search(r"--config=(\S+)", self.text)
    return found and found[1]


@dataclasses.dataclass(frozen=True)
class Block:
  """A fenced block.

  Attributes:
    document: The document's path, relative to the repository.
    line: The number of the block's first line, behind the fence.
    language: The word after the fence.
    mark: The comment on the line before the fence; empty if the block is to
      be run.
    text: The block's lines.
  """

  document: str
  line: int
  language: str
  mark: str
  text: str

  @property
  def place(self) -> str:
    """The document and the number of the block's first line."""
    return f"{self.document}:{self.line}"

  def commands(self) -> list[Command]:
    """Returns the commands of a block of shell, without comments."""
    commands, text, start = [], "", self.line
    for number, line in enumerate(self.text.splitlines(), self.line):
      text = f"{text} {line.strip()}" if text else line.strip()
      if text.endswith("\\"):
        text = text.removesuffix("\\").rstrip()
        continue
      text = re.sub(r"(^|\s+)#\s.*", "", text)
      if text:
        commands.append(Command(f"{self.document}:{start}", text))
      text, start = "", number + 1
    assert not text, f"{self.place} ends in the middle of a command"
    return commands


def name_of(document: pathlib.Path) -> str:
  """Returns a document's path, relative to the repository."""
  return document.relative_to(ROOT).as_posix()


def blocks_of(document: pathlib.Path) -> list[Block]:
  """Returns the fenced blocks of a document.

  Args:
    document: The path of a Markdown file.

  Returns:
    The blocks, in order.
  """
  blocks: list[Block] = []
  before, begin, fence, lines = "", 0, None, []
  for number, line in enumerate(document.read_text().splitlines(), 1):
    found = _FENCE.fullmatch(line)
    if fence is None:
      if found:
        mark = _MARK.fullmatch(before)
        assert mark or not before.startswith("<!--"), (
          f"{document}:{number}: {before} is neither <!-- needs: ... --> nor "
          f"<!-- {BY_CI} -->"
        )
        fence, begin, lines = found[1], number + 1, []
      before = line
    elif line == "```":
      text = "\n".join(lines) + "\n"
      blocks.append(
        Block(name_of(document), begin, fence, mark[1] if mark else "", text)
      )
      fence, before = None, ""
    else:
      lines.append(line)
  assert fence is None, f"{document}:{begin}: the block has no end"
  return blocks


def commands_of(document: pathlib.Path) -> list[Command]:
  """Returns every shell command of a document's blocks, marked or not."""
  blocks = [block for block in blocks_of(document) if block.language == "sh"]
  return [command for block in blocks for command in block.commands()]


def code_spans(document: pathlib.Path) -> list[Command]:
  """Returns the code spans of a document's prose.

  Args:
    document: The path of a Markdown file.

  Returns:
    The spans; one that is broken across two lines is joined.
  """
  prose = re.sub(r"(?ms)^```.*?^```$", _empty_lines, document.read_text())
  spans = []
  for found in re.finditer(r"`([^`]+)`", prose):
    line = prose.count("\n", 0, found.start()) + 1
    text = " ".join(found[1].split())
    spans.append(Command(f"{name_of(document)}:{line}", text))
  return spans


def _empty_lines(found: re.Match) -> str:
  return "\n" * found[0].count("\n")


def links_of(document: pathlib.Path) -> list[str]:
  """Returns the targets of a document's relative links, without anchors."""
  targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", document.read_text())
  return [target for target in targets if "://" not in target]
