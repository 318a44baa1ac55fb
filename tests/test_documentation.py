"""The documents stay true: their commands run, their names and links exist."""

import functools
import importlib.util
import re

import pytest
import yaml
from ml_collections import ConfigDict

from inp_former_jax import config_files
from tests.conftest import ROOT
from tests.documentation_blocks import (
  BY_CI,
  DOCUMENTS,
  FOREIGN,
  LANGUAGES,
  Block,
  Command,
  blocks_of,
  code_spans,
  commands_of,
  links_of,
  name_of,
)
from tests.documentation_sandbox import Sandbox
from tests.test_house import COMMANDS, sources

EXAMPLE = ROOT / "examples" / "custom_training.py"
TO_RUN = {
  document: [
    block
    for block in blocks_of(document)
    if block.language in ("sh", "python") and not block.mark
  ]
  for document in DOCUMENTS
}
# Not fields: config.json is a file of a workdir.
NOT_FIELDS = {"json"}

every_document = pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)


@functools.cache
def load(spec: str) -> ConfigDict:
  return config_files.load_config(spec)


def code_of(document) -> list[Command]:
  """The commands of the blocks, marked or not, and the code in the prose."""
  return commands_of(document) + code_spans(document)


def is_field(config: ConfigDict, name: str) -> bool:
  value = config
  for key in name.split("."):
    if not isinstance(value, ConfigDict) or key not in value:
      return False
    value = value[key]
  return True


def module_of(command: Command) -> str | None:
  module = command.module()
  if f"{module}.__main__" in COMMANDS:
    return f"{module}.__main__"
  return module


@every_document
def test_every_block_is_marked_or_can_be_run(document):
  for block in blocks_of(document):
    assert block.language in LANGUAGES, block.place
    if block.mark == BY_CI:
      check_run_by_ci(block)
    elif block.language == "sh":
      commands = block.commands()
      assert commands, f"{block.place} holds no command"
      for command in commands:
        started = command.text.startswith(("python ", "inp-former "))
        runs = started or command.is_skipped()
        assert block.mark or runs, (
          f"{command.place}: no test runs {command.text!r}. Say above the "
          "block what it needs: <!-- needs: ... -->"
        )
    elif block.language == "python":
      compile(block.text, block.place, "exec")
    elif block.language == "yaml":
      assert block.mark, f"{block.place} does not say what it needs"


def check_run_by_ci(block: Block) -> None:
  script = (ROOT / ".ci" / "run").read_text()
  for command in block.commands():
    start = " ".join(command.text.split()[:2])
    assert re.search(rf"^{start}(?=\s|$)", script, re.MULTILINE), (
      f"{command.place}: .ci/run does not run {start!r}"
    )


@every_document
def test_modules_scripts_and_make_targets_exist(document):
  targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M)
  for command in code_of(document):
    module = module_of(command)
    if module and module.startswith(("inp_former_jax", "weights_conversion")):
      assert module in COMMANDS, f"{command.place}: {module} is no command"
    elif module:
      assert not module.startswith("inp-former"), (
        f"{command.place}: {module} is no command"
      )
      assert importlib.util.find_spec(module), f"{command.place}: {module}"
    for script in re.findall(r"\bpython ([\w/]+\.py)\b", command.text):
      assert (ROOT / script).is_file(), f"{command.place}: {script}"
    if command.text.startswith("make "):
      words = [word for word in command.text.split()[1:] if "=" not in word]
      assert set(words) <= set(targets), f"{command.place}: {command.text}"


@every_document
def test_flags_are_defined_by_the_command(document):
  for command in code_of(document):
    if command.text.startswith(FOREIGN):
      continue
    module = module_of(command)
    # In prose a flag is often named without its command.
    modules = [module] if module in COMMANDS else sorted(COMMANDS)
    defined = "".join(with_shared_flags(module) for module in modules)
    for flag in re.findall(r"(?:^|\s)--(\w+)(?=[\s=]|$)", command.text):
      assert re.search(rf'"(--)?{flag}"', defined), (
        f"{command.place}: --{flag} is no flag of {module or 'any command'}"
      )


def test_the_manifest_of_kubernetes_starts_the_command_with_its_flags():
  blocks = blocks_of(ROOT / "docs" / "scaling.md")
  (manifest,) = [block for block in blocks if block.language == "yaml"]
  job = yaml.safe_load(manifest.text)["spec"]["replicatedJobs"][0]["template"]
  (container,) = job["spec"]["template"]["spec"]["containers"]
  assert container["command"][:2] == ["python", "-m"]
  defined = with_shared_flags(container["command"][2])
  flags = [re.match(r"--(\w+)", argument)[1] for argument in container["args"]]
  assert {"config", "workdir", "process_id"} < set(flags)
  for flag in flags:
    assert re.search(rf'"(--)?{flag}"', defined), flag
  assert f"--num_processes={job['spec']['completions']}" in container["args"]


@functools.cache
def with_shared_flags(module: str) -> str:
  """The source of a command, and that of the flags that commands share."""
  text = sources()[module].read_text()
  for shared in ("command_line", "arguments"):
    if shared in text:
      text += sources()[f"inp_former_jax.{shared}"].read_text()
  return text


@every_document
def test_configs_can_be_loaded(document):
  for command in code_of(document):
    if command.config():
      load(command.config())


@every_document
def test_config_fields_exist(document):
  for command in code_of(document):
    config = load(command.config() or "common")
    fields = re.findall(r"(?<![\w./])config\.([a-z][\w.]*)", command.text)
    for field in fields:
      assert field in NOT_FIELDS or is_field(config, field), (
        f"{command.place}: {command.config() or 'common'} has no field {field}"
      )


@every_document
def test_linked_files_exist(document):
  for target in links_of(document):
    assert (document.parent / target).exists(), (
      f"{name_of(document)} links to {target}, which does not exist"
    )


def test_the_documents_are_read_as_expected():
  """None of the tests above passes for want of something to check."""
  readme = ROOT / "README.md"
  modules = {module_of(command) for command in code_of(readme)}
  assert "inp_former_jax.main" in modules
  assert "weights_conversion.verify" in modules
  assert "docs/datasets.md" in links_of(readme)
  assert sum(len(blocks) for blocks in TO_RUN.values()) > 12
  assert is_field(load("common"), "evaluation.max_fpr")
  assert not is_field(load("common"), "evaluation.max_fp")


def test_readme_is_short():
  assert len((ROOT / "README.md").read_text().splitlines()) <= 180


def test_example_is_short():
  assert len(EXAMPLE.read_text().splitlines()) <= 60


def run_commands(document, folder) -> None:
  """Runs all blocks of a document that are not marked, in one sandbox."""
  sandbox = Sandbox(folder)
  sandbox.prepare(name_of(document))
  for block in TO_RUN[document]:
    sandbox.run_block(block)
  if sandbox.failures:
    pytest.fail("\n\n".join(sandbox.failures), pytrace=False)


TAKE_MINUTES = (
  *("docs/datasets.md", "docs/prediction.md", "docs/results.md"),
  "docs/weights.md",
  "inp_former_jax/assets/demo_vit_tiny_14.md",
)


# README's have a file of their own, tests/test_readme.py.
@pytest.mark.slow
@pytest.mark.parametrize(
  "document",
  [
    pytest.param(d, marks=pytest.mark.long, id=name_of(d))
    if name_of(d) in TAKE_MINUTES
    else pytest.param(d, id=name_of(d))
    for d in TO_RUN
    if TO_RUN[d] and name_of(d) != "README.md"
  ],
)
def test_commands_run(document, tmp_path):
  run_commands(document, tmp_path)
