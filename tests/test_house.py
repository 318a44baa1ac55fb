"""The house's directions: commands -> jobs -> rooms -> mathematics.

Read from the source by `ast`, so that no import has to run.
"""

import ast
import functools
import graphlib
import pathlib
import re

import pytest

from tests.conftest import ROOT

PACKAGE = "inp_former_jax"
# Modules to be run by `python -m`; nothing may import one.
COMMANDS = {
  f"{PACKAGE}.__main__",
  f"{PACKAGE}.main",
  f"{PACKAGE}.aot",
  f"{PACKAGE}.benchmark",
  f"{PACKAGE}.calibrate",
  f"{PACKAGE}.export",
  f"{PACKAGE}.predict",
  f"{PACKAGE}.data.__main__",
  f"{PACKAGE}.data.tfds_builder",
  f"{PACKAGE}.models.pretrained",
  "weights_conversion.dinov2",
  "weights_conversion.distill",
  "weights_conversion.inp_former",
  "weights_conversion.inspect",
  "weights_conversion.verify",
}
# Modules that take a config and do a whole job; only commands and jobs import
# them.
JOBS = {
  f"{PACKAGE}.{name}"
  for name in (
    *("train", "evaluate", "protocols", "experiment", "distill"),
    *("checkpointing", "field_ranges", "thresholds", "training_inputs"),
    "workdir_owner",
    *("benchmarks", "benchmarks.memory", "benchmarks.models"),
    *("benchmarks.ahead_of_time", "benchmarks.ahead_of_time_table"),
    *("benchmarks.collectives", "benchmarks.largest_batch"),
    "benchmarks.tpu_chips",
    *("benchmarks.compiling", "benchmarks.data", "benchmarks.epochs"),
    "benchmarks.floor",
    *("benchmarks.growth", "benchmarks.maps", "benchmarks.pictures"),
    *("benchmarks.record", "benchmarks.rounds", "benchmarks.speed"),
    *("benchmarks.speed_table", "benchmarks.steps", "benchmarks.tracing"),
    "benchmarks.versus_torch",
  )
}
# Rooms by what they may import of the others; `top` are single modules beside
# the rooms that anyone may use.
ROOMS = {
  "top": set(),
  "processes": set(),
  "data": set(),
  "models": set(),
  "weights": {"models"},
  "training": {"models", "weights", "data", "processes"},
  "inference": {"training", "weights", "models", "data"},
  "evaluation": {"inference", "training", "models", "data", "processes"},
  "exporting": {"inference", "models", "data"},
  "distillation": {"training", "weights", "models", "data"},
}
TOP = {
  "arguments",
  "archives",
  "sharding",
  "terminal",
  "atomic",
  "buckets",
  "command_line",
  "compilation_cache",
  "config_files",
  "field_names",
  "freed_memory",
  "hashing",
  "user_cache",
}
MAX_LINES = 350
CONFIGS = f"{PACKAGE}.configs"


def module_name(path: pathlib.Path) -> str:
  parts = path.relative_to(ROOT).with_suffix("").parts
  if parts[0] == "configs":
    parts = (PACKAGE, *parts)  # as it is installed
  return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@functools.cache
def sources() -> dict[str, pathlib.Path]:
  """Module -> file, of the package and the conversion commands."""
  return {
    module_name(path): path
    for folder in (PACKAGE, "weights_conversion", "configs")
    for path in sorted((ROOT / folder).rglob("*.py"))
  }


@functools.cache
def imports_of(module: str) -> frozenset[str]:
  """Modules of this project that a module imports, also inside functions."""
  found = set()
  for node in ast.walk(ast.parse(sources()[module].read_text())):
    if isinstance(node, ast.Import):
      found |= {alias.name for alias in node.names}
    elif isinstance(node, ast.ImportFrom):
      assert node.level == 0, f"{module} has a relative import"
      for alias in node.names:
        whole = f"{node.module}.{alias.name}"
        found.add(whole if whole in sources() else node.module)
  return frozenset(found & set(sources()))


def in_package() -> list[str]:
  """Modules of the package, without its configs and its public names."""
  return [
    module
    for module in sources()
    if module.startswith(f"{PACKAGE}.") and not module.startswith(CONFIGS)
  ]


def room_of(module: str) -> str:
  """The room of a module; the kind of one that is in none."""
  if module in COMMANDS:
    return "command"
  if module in JOBS:
    return "job"
  parts = module.split(".")
  if len(parts) > 1 and parts[1] in ROOMS:
    return parts[1]
  assert parts[1] in TOP, (
    f"{module} is no command, no job and in no room: name it in this test"
  )
  return "top"


def test_the_package_imports_neither_conversion_nor_configs():
  for module in in_package():
    foreign = {
      imported
      for imported in imports_of(module)
      if imported.split(".")[0] != PACKAGE or imported.startswith(CONFIGS)
    }
    assert not foreign, f"{module} imports {foreign}"


def test_configs_import_configs_only():
  for module in sources():
    if module.startswith(CONFIGS):
      others = {i for i in imports_of(module) if not i.startswith(CONFIGS)}
      assert not others, f"{module} imports {others}"


def test_there_is_no_circle():
  graph = {module: imports_of(module) for module in sources()}
  try:
    list(graphlib.TopologicalSorter(graph).static_order())
  except graphlib.CycleError as error:
    pytest.fail(f"A circle of imports: {' <- '.join(error.args[1])}")


def test_commands_are_imported_by_nobody():
  for module in sources():
    commands = imports_of(module) & COMMANDS
    assert not commands, f"{module} imports the command {commands}"


def test_rooms_import_no_job_and_only_the_rooms_below():
  for module in in_package():
    room = room_of(module)
    if room in ("command", "job"):
      continue
    for imported in imports_of(module):
      below = room_of(imported)
      assert below in ROOMS, f"{module} (in {room}) imports {imported}"
      allowed = {room, "top"} | ROOMS[room]
      assert below in allowed, f"{module} (in {room}) imports {imported}"


def test_rooms_take_values_and_not_the_config():
  # The report notes the whole config, and the paper's rows compare with it.
  exceptions = {"report", "paper"}
  for module in in_package():
    if room_of(module) in set(ROOMS) - {"top"}:
      if module.rsplit(".", 1)[-1] not in exceptions:
        text = sources()[module].read_text()
        assert "ml_collections" not in text, f"{module} takes the config"


def test_images_are_opened_in_one_place_only():
  # Elsewhere the formats, the size and the kind of file would go unchecked.
  opening = {
    module
    for module, path in sources().items()
    for node in ast.walk(ast.parse(path.read_text()))
    if isinstance(node, ast.Attribute | ast.alias)
    and ast.unparse(node) in ("Image.open", "PIL.Image.open", "imageio")
  }
  assert opening == {f"{PACKAGE}.data.image_files"}


def test_commands_escape_the_errors_that_they_print():
  # They name files, whose names may hold escape sequences.
  for module, path in sources().items():
    for number, line in enumerate(path.read_text().splitlines(), 1):
      raw = re.search(r'f"error: \{(?!escaped\()', line)
      assert not raw, f"{module}, line {number}: {line.strip()}"


def test_the_rooms_themselves_form_no_circle():
  list(graphlib.TopologicalSorter(ROOMS).static_order())


def test_every_command_and_job_is_there():
  assert set(sources()) >= COMMANDS | JOBS


@pytest.mark.parametrize("module", sources())
def test_first_line_says_in_a_sentence_what_the_module_is_for(module):
  text = sources()[module].read_text()
  lines = (ast.get_docstring(ast.parse(text)) or "").splitlines()
  assert lines and lines[0].endswith("."), f"{module}: {lines[:1]}"
  assert len(lines) == 1 or not lines[1], f"{module}: the sentence is too long"
  assert text.count("\n") <= MAX_LINES, f"{module} is too long"


def test_no_test_file_is_too_long():
  for path in (ROOT / "tests").rglob("*.py"):
    assert path.read_text().count("\n") <= MAX_LINES, f"{path} is too long"


def test_the_old_near_synonyms_are_gone():
  names = {path.stem for path in sources().values()}
  gone = {"predictions", "unlabelled", "folders", "listings"}
  gone |= {"visualize", "model_scores", "reference", "encoder_sources"}
  assert not names & gone
  assert not [name for name in names if name.endswith("_checks")]
