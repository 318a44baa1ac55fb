"""Finds and loads configs: by name, by path, or the one a workdir holds.

The configs of the project's folder `configs/` are installed as
`inp_former_jax.configs`, so that they can be named from any folder and the
import name `configs` stays the user's own.
"""

import difflib
import importlib
import importlib.util
import inspect
import json
import os
import pathlib
import sys
import types
from collections.abc import Collection
from typing import Any

from ml_collections import ConfigDict

from inp_former_jax.atomic import write_json

RECORDED = "config.json"  # in a workdir: the config of its run
TRAINING, DISTILLATION = "training run", "distillation"  # kinds of runs
# By kind: a field that no other config has, and the config of all its fields.
_KINDS = {TRAINING: ("protocol", "common"), DISTILLATION: ("views", "distill")}
_PACKAGE = "inp_former_jax.configs"
_NOT_LEAVES = ("__init__", "common", "options")
_NOT_INSTALLED = (
  "The configs are not installed with the package: run `pip install -e .` in "
  "the project's folder."
)
# Sources of weights that are not files.
_KEYWORDS = ("random", "original", "teacher")


class ConfigError(Exception):
  """Raised if a config cannot be found, or its options cannot be applied."""


def load_config(spec: str | os.PathLike) -> ConfigDict:
  """Loads a config.

  Args:
    spec: The name of a config, such as "mvtec", or the path of a file that ends
      in `.py`; either may be followed by options, as in
      "mvtec:few_shot,shots=2". Or the folder of a run, or its `config.json`.

  Returns:
    The config. Its fields can be set, but none can be added.

  Raises:
    ConfigError: If there is no such config, or it does not have the options.
  """
  spec = str(spec)
  path = pathlib.Path(spec).expanduser()
  if path.suffix == ".json":
    return read_recorded(path)
  if (path / RECORDED).is_file() and spec not in config_names():
    return read_recorded(path / RECORDED)
  name, colon, options = spec.partition(":")
  if name.endswith(".json"):
    raise ConfigError(
      f"{name} is the record of a run and takes no options; {options!r} was "
      "given after the colon."
    )
  get_config = _load_module(name).get_config
  if colon and not inspect.signature(get_config).parameters:
    raise ConfigError(
      f"The config {name} takes no options; {options!r} was given after the "
      "colon."
    )
  try:
    config = get_config(options) if colon else get_config()
  except ValueError as error:
    raise ConfigError(f"{spec}: {error}") from error
  return config.lock()


def kind_of(fields: Collection[str] | ConfigDict) -> str | None:
  """Returns the kind of run that a config is for.

  Args:
    fields: The config, or the names of its fields.

  Returns:
    TRAINING or DISTILLATION; None if it is neither's.
  """
  for kind, (field, _) in _KINDS.items():
    if field in fields:
      return kind
  return None


def config_names() -> list[str]:
  """Returns the names of the configs that come with the package."""
  names = [path.stem for path in _installed_folder().glob("*.py")]
  return sorted(name for name in names if name not in _NOT_LEAVES)


def _load_module(name: str) -> types.ModuleType:
  """Imports a config's module: the user's file, or else one of the package."""
  path = pathlib.Path(name).expanduser()
  try:
    if path.suffix == ".py" and path.is_file():
      module = _load_file(path)
    else:
      module = importlib.import_module(f"{_PACKAGE}.{_installed_name(path)}")
  except ModuleNotFoundError as error:
    if error.name != _PACKAGE:
      raise
    raise ConfigError(_NOT_INSTALLED) from error
  if not hasattr(module, "get_config"):
    raise ConfigError(f"The config {name} defines no function get_config().")
  return module


def _load_file(path: pathlib.Path) -> types.ModuleType:
  spec = importlib.util.spec_from_file_location(f"config_{path.stem}", path)
  assert spec is not None and spec.loader is not None  # a .py file has one
  module = importlib.util.module_from_spec(spec)
  # Dataclasses look their module up there.
  sys.modules[spec.name] = module
  spec.loader.exec_module(module)
  return module


def _installed_name(path: pathlib.Path) -> str:
  """Returns the module of "mvtec", or of a missing "configs/mvtec.py"."""
  is_path = path.suffix == ".py" or path.parent != pathlib.Path()
  name = path.stem if is_path else path.name
  installed = _installed_folder() / f"{name}.py"
  folder = path.parent.as_posix()
  if name != "__init__" and folder in (".", "configs") and installed.is_file():
    return name
  names = ", ".join(config_names())
  if is_path:
    found = (
      "does not end in .py"
      if path.exists()
      else f"does not exist (in {pathlib.Path.cwd()})"
    )
    raise ConfigError(
      f"The config file {path} {found}. Instead of a path, a name can be "
      f"given: {names}."
    )
  nearest = difflib.get_close_matches(name, config_names(), n=1)
  hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
  raise ConfigError(
    f"There is no config named {name!r}.{hint} The names are {names}; or give "
    "the path of a file that ends in .py."
  )


def _installed_folder() -> pathlib.Path:
  spec = importlib.util.find_spec(_PACKAGE)
  if spec is None or not spec.submodule_search_locations:
    raise ConfigError(_NOT_INSTALLED)
  return pathlib.Path(spec.submodule_search_locations[0])


def with_absolute_paths(config: ConfigDict) -> ConfigDict:
  """Makes the relative paths of a config absolute.

  A workdir records its config, and is used from other folders later.

  Args:
    config: The config of a run; it is not changed.

  Returns:
    A copy in which paths where something is are absolute, and the folder of the
    caches too, which may come later.
  """
  config = config.copy_and_resolve_references()
  if kind_of(config) == DISTILLATION:
    config.teacher.weights = _absolute_source(config.teacher.weights)
    config.student.initial = _absolute_source(config.student.initial)
    config.views.folders = tuple(map(_absolute, config.views.folders))
    return config
  config.data.root = _absolute(config.data.root)
  config.data.tfds_dir = _absolute(config.data.tfds_dir)
  config.data.sources = tuple(
    (*source[:1], *map(_absolute, source[1:2]), *source[2:])
    for source in config.data.sources
  )
  config.model.encoder_weights = _absolute_source(config.model.encoder_weights)
  config.init_from = _absolute(config.init_from)
  config.cache_dir = _absolute(config.cache_dir, may_come=True)
  if config.protocol == "zero_shot":
    config.zero_shot_checkpoint = _absolute(config.zero_shot_checkpoint)
  return config


def _absolute_source(weights: Any) -> Any:
  return weights if weights in _KEYWORDS else _absolute(weights)


def _absolute(path: Any, may_come: bool = False) -> Any:
  """Makes a path absolute if something is there; leaves the rest to errors."""
  if not path or not isinstance(path, str | os.PathLike):
    return path
  try:
    expanded = pathlib.Path(path).expanduser()
  except RuntimeError:  # there is no such home folder
    return path
  return str(expanded.absolute()) if may_come or expanded.exists() else path


def write_recorded(config: ConfigDict, workdir: pathlib.Path) -> None:
  """Writes `config.json`, by which the workdir can be used without a config.

  Args:
    config: The config of the run.
    workdir: The folder of the run.
  """
  write_json(workdir / RECORDED, config.to_dict())


def read_recorded(path: pathlib.Path) -> ConfigDict:
  """Reads what `write_recorded` wrote.

  Args:
    path: The file `config.json` of a workdir.

  Returns:
    The config of the run, of either kind. Fields that came later have their
    defaults.

  Raises:
    ConfigError: If the file does not exist, or does not hold a config.
  """
  fields = recorded_fields(path)
  kind = kind_of(fields)
  assert kind is not None  # or else there would have been an error
  _, complete = _KINDS[kind]
  config = _load_module(complete).get_config()
  try:
    config.update(_with_tuples(fields))
  except (TypeError, RecursionError) as error:
    raise ConfigError(f"{path} does not hold a config ({error}).") from error
  return config.lock()


def recorded_fields(path: pathlib.Path) -> dict[str, Any]:
  """Reads the fields that `write_recorded` wrote, and no others.

  Args:
    path: The file `config.json` of a workdir.

  Returns:
    The config as a nested dict, with lists in place of tuples.

  Raises:
    ConfigError: If the file does not exist, or does not hold a config.
  """
  try:
    fields = json.loads(path.read_text(encoding="utf-8"))
  except FileNotFoundError as error:
    raise ConfigError(
      f"There is no {path}: nothing has been trained in this workdir yet, or "
      "by an earlier version. Give --config."
    ) from error
  except (ValueError, OSError, RecursionError) as error:
    raise ConfigError(
      f"{path} does not hold a config ({error}). Give --config."
    ) from error
  if not isinstance(fields, dict) or kind_of(fields) is None:
    raise ConfigError(f"{path} does not hold a config. Give --config.")
  return fields


def _with_tuples(value: Any) -> Any:
  """Turns lists into tuples, which configs have but JSON lacks."""
  if isinstance(value, dict):
    return {key: _with_tuples(item) for key, item in value.items()}
  if isinstance(value, list):
    return tuple(_with_tuples(item) for item in value)
  return value
