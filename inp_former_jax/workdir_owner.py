"""Records in a workdir whose run it is, and refuses other runs there."""

import os
import pathlib
from collections.abc import Collection

import jax
from ml_collections import ConfigDict

from inp_former_jax import config_files
from inp_former_jax.field_ranges import SINGLE_CLASS
from inp_former_jax.training import identity
from inp_former_jax.training.checkpoints import place, workdirs
from inp_former_jax.training.identity import CheckpointError


def record(config: ConfigDict, workdir: str | os.PathLike) -> None:
  """Records the config of a run, on the first process only.

  A run does so before its first step; what fails earlier binds the workdir to
  nothing.

  Args:
    config: The config of the run.
    workdir: The folder of the run.
  """
  if jax.process_index() == 0:
    config_files.write_recorded(config, workdirs.absolute_workdir(workdir))


def require_same_start(config: ConfigDict, workdir: pathlib.Path) -> None:
  """Makes sure that no other run has been started in a workdir.

  Only the recorded config is compared. Weights and images are compared with the
  checkpoint, when they have been read.

  Args:
    config: The config of the run.
    workdir: The folder of the run, which need not hold anything yet.

  Raises:
    CheckpointError: If a run of another kind, or with another value of a field
      that influences training, has been started there. The message names every
      field that differs. Or if its checkpoints cannot be where they are to be.
    ConfigError: If the recorded config cannot be read.
  """
  # An address that cannot be used is found before data and models are read.
  place.of_run(config.checkpoint.get("folder", ""), workdir)
  path = workdir / config_files.RECORDED
  if not path.is_file():
    return
  saved = config_files.recorded_fields(path)
  _require_same_kind(saved, config, workdir)
  identity.require_same_start(
    workdir,
    identity.flatten(saved),
    identity.flatten(config.to_dict()),
    has_checkpoints=lambda: place.has_steps(place.of_workdir(workdir)),
  )


def require_same_protocol(
  config: ConfigDict, workdir: str | os.PathLike
) -> None:
  """Makes sure that a workdir does not belong to a run of another protocol.

  Args:
    config: The config of a training run.
    workdir: The folder of the run, which need not hold anything yet.

  Raises:
    CheckpointError: If it belongs to a distillation.
    ConfigError: If the recorded config cannot be read.
    ValueError: If it belongs to a run of another protocol.
  """
  path = workdirs.absolute_workdir(workdir) / config_files.RECORDED
  if not path.is_file():
    return
  recorded = config_files.read_recorded(path)
  _require_same_kind(recorded, config, workdir)
  if recorded.protocol == SINGLE_CLASS and not any(
    next(path.parent.glob(f"{levels}{config_files.RECORDED}"), None)
    for levels in ("*/", "*/*/")  # the latter of a mixture of data sets
  ):
    return  # it failed before its first model was trained
  if recorded.protocol != config.protocol:
    raise ValueError(
      f"The workdir {workdir} belongs to a run of config.protocol="
      f"{recorded.protocol}; this one is {config.protocol}. Choose another "
      "workdir."
    )


def _require_same_kind(
  recorded: Collection[str] | ConfigDict,
  config: ConfigDict,
  workdir: str | os.PathLike,
) -> None:
  kinds = config_files.kind_of(recorded), config_files.kind_of(config)
  if kinds[0] != kinds[1]:
    raise CheckpointError(
      f"The workdir {workdir} belongs to a {kinds[0]}; this is a {kinds[1]}. "
      "Choose another workdir."
    )
