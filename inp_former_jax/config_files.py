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
import types
from typing import Any

from ml_collections import ConfigDict

from inp_former_jax.atomic import replacing

RECORDED = "config.json"  # in a workdir: the config that it was trained with
_PACKAGE = "inp_former_jax.configs"
_NOT_LEAVES = ("__init__", "common", "options")


class ConfigError(Exception):
  """Raised if a config cannot be found, or its options cannot be applied."""


def load_config(spec: str) -> ConfigDict:
  """Loads a config by its name or from a file.

  Args:
    spec: The name of a config, such as "mvtec", or a path that ends in `.py`,
      either of which may be followed by options, as in
      "mvtec:few_shot,shots=2"; or the path of the `config.json` of a workdir.

  Returns:
    The config. Its fields can be set, but none can be added.

  Raises:
    ConfigError: If there is no such config, or it does not have the options.
  """
  name, colon, options = spec.partition(":")
  if name.endswith(".json"):
    return read_recorded(pathlib.Path(name))
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


def config_names() -> list[str]:
  """Returns the names of the configs that come with the package."""
  names = [path.stem for path in _installed_folder().glob("*.py")]
  return sorted(name for name in names if name not in _NOT_LEAVES)


def _load_module(name: str) -> types.ModuleType:
  """Loads a config's module: the user's file, or else one of the package."""
  path = pathlib.Path(name).expanduser()
  if path.suffix == ".py" and path.is_file():
    spec = importlib.util.spec_from_file_location(f"config_{path.stem}", path)
    assert spec is not None and spec.loader is not None  # a .py file has one
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
  else:
    module = importlib.import_module(f"{_PACKAGE}.{_installed_name(path)}")
  if not hasattr(module, "get_config"):
    raise ConfigError(f"The config {name} defines no function get_config().")
  return module


def _installed_name(path: pathlib.Path) -> str:
  """Finds the module for "mvtec", or for a configs/mvtec.py that is absent."""
  is_path = path.suffix == ".py" or path.parent != pathlib.Path()
  name = path.stem if is_path else path.name
  known = path.parent.as_posix() in (".", "configs")
  if (
    known
    and name != "__init__"
    and (_installed_folder() / f"{name}.py").is_file()
  ):
    return name
  if is_path:
    raise ConfigError(
      f"The config file {path} does not exist (in {pathlib.Path.cwd()}). "
      f"Instead of a path, a name can be given: {', '.join(config_names())}."
    )
  nearest = difflib.get_close_matches(name, config_names(), n=1)
  hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
  raise ConfigError(
    f"There is no config named {name!r}.{hint} The names are "
    f"{', '.join(config_names())}; or give the path of a file that ends in .py."
  )


def _installed_folder() -> pathlib.Path:
  spec = importlib.util.find_spec(_PACKAGE)
  if spec is None or not spec.submodule_search_locations:
    raise ConfigError(
      "The configs are not installed with the package: run "
      "`pip install -e .` in the project's folder."
    )
  return pathlib.Path(spec.submodule_search_locations[0])


def write_recorded(config: ConfigDict, workdir: pathlib.Path) -> None:
  """Writes `config.json`, by which the workdir can be used without a config.

  Args:
    config: The config of the run. Relative paths in it are made absolute, so
      that the workdir can be used from any folder.
    workdir: Folder of the run.
  """
  fields = config.to_dict()
  for section, name in (
    (fields, "zero_shot_checkpoint"),
    (fields["model"], "encoder_weights"),
    (fields["data"], "root"),
    (fields["data"], "tfds_dir"),
  ):
    section[name] = _absolute(section[name])
  fields["data"]["sources"] = [
    [layout, _absolute(root), *categories]
    for layout, root, *categories in fields["data"]["sources"]
  ]
  with replacing(workdir / RECORDED) as path:
    path.write_text(json.dumps(fields, indent=2) + "\n", encoding="utf-8")


def _absolute(path: str | os.PathLike) -> str:
  """Makes the path of an existing file or folder absolute."""
  expanded = pathlib.Path(path).expanduser()
  return str(expanded.absolute() if path and expanded.exists() else path)


def read_recorded(path: pathlib.Path) -> ConfigDict:
  """Reads the config that `write_recorded` wrote.

  Args:
    path: The file `config.json` of a workdir.

  Returns:
    The config that the workdir was trained with.

  Raises:
    ConfigError: If the file does not exist, or does not hold a config.
  """
  try:
    fields = json.loads(path.read_text(encoding="utf-8"))
    return ConfigDict(_with_tuples(fields)).lock()
  except FileNotFoundError as error:
    raise ConfigError(
      f"There is no {path}: nothing has been trained in this workdir yet, or "
      "by an earlier version. Give --config."
    ) from error
  except (ValueError, TypeError, OSError) as error:
    raise ConfigError(
      f"{path} does not hold a config ({error}). Give --config."
    ) from error


def _with_tuples(value: Any) -> Any:
  """Turns lists into tuples, which configs have but JSON lacks."""
  if isinstance(value, dict):
    return {key: _with_tuples(item) for key, item in value.items()}
  if isinstance(value, list):
    return tuple(_with_tuples(item) for item in value)
  return value
