"""What a checkpoint belongs to, and whether a run is the same."""

import pathlib
from collections.abc import Mapping
from typing import Any

# Fields that may differ between the run that saved and the one that resumes:
# they change neither the parameters nor the order of the data.
FREE_FIELDS = (
  "checkpoint",
  "data.num_threads",
  "data.num_workers",
  "data.layout",
  "data.root",
  "data.sources",
  "data.tfds",
  "data.tfds_dir",
  "evaluation",
  "log",
  "mesh",
  "model.encoder_weights",
)
# Fields that decide whether a checkpoint can be evaluated.
MODEL_FIELDS = (
  "model.encoder",
  "model.num_prototypes",
  "model.use_inps",
  "encoder",
  "data.resize",
  "data.crop",
  "data.resize_width",
  "data.crop_width",
)


_INP_FORMER_FIELDS = (
  "model.encoder",
  "model.num_prototypes",
  "model.use_inps",
  "encoder.name",
  "encoder.sha256",
)


class CheckpointError(RuntimeError):
  """A checkpoint cannot be written, read, or belongs to another run."""


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
  """Gives the values of a nested dict dotted names.

  Args:
    tree: A config or an identity, as a nested dict.
    prefix: Stands before every name.

  Returns:
    Dotted name -> value; tuples become lists, as in JSON.
  """
  flat = {}
  for key, value in tree.items():
    if isinstance(value, Mapping):
      flat |= flatten(value, f"{prefix}{key}.")
    else:
      value = list(value) if isinstance(value, tuple) else value
      flat[prefix + key] = value
  return flat


def _within(field: str, sections: tuple[str, ...]) -> bool:
  return any(field == s or field.startswith(s + ".") for s in sections)


def _differences(
  saved: Mapping[str, Any], now: Mapping[str, Any], for_training: bool
) -> list[str]:
  lines = []
  # A converted checkpoint says nothing of the run: those fields are free.
  for field in sorted(saved):
    if _within(field, FREE_FIELDS):
      continue
    if not for_training and not _within(field, MODEL_FIELDS):
      continue
    if saved[field] != now.get(field):
      lines.append(f"{field}: {saved[field]!r} there, {now.get(field)!r} here")
  return lines


def require_inp_former(path: pathlib.Path, saved: Mapping[str, Any]) -> None:
  """Makes sure that a checkpoint holds an INP-Former.

  Args:
    path: The checkpoint, for the error.
    saved: Its identity, by dotted names.

  Raises:
    CheckpointError: If it holds something else, such as a distilled student.
  """
  missing = [name for name in _INP_FORMER_FIELDS if name not in saved]
  if missing:
    raise CheckpointError(
      f"The checkpoint {path} is not that of an INP-Former: its record lacks "
      f"{', '.join(missing)}. Name the workdir of a training run, or of a "
      "converted checkpoint."
    )


def require_same_model(
  path: pathlib.Path, saved: Mapping[str, Any], wanted: Mapping[str, Any]
) -> None:
  """Makes sure that a checkpoint holds the model that is asked for.

  Args:
    path: The checkpoint, for the error.
    saved: Its identity, by dotted names.
    wanted: What is asked for, by dotted names.

  Raises:
    CheckpointError: If one of MODEL_FIELDS differs; every one is named.
  """
  require_same_run(path, saved, wanted, for_training=False)


def require_same_run(
  path: pathlib.Path,
  saved: Mapping[str, Any],
  now: Mapping[str, Any],
  *,
  for_training: bool,
) -> None:
  """Makes sure that a checkpoint belongs to this run.

  Args:
    path: The checkpoint, for the error.
    saved: Its identity, by dotted names.
    now: The identity of this run, by dotted names.
    for_training: Whether everything that influences training must agree, or
      MODEL_FIELDS only.

  Raises:
    CheckpointError: If a field differs; every one is named.
  """
  differing = _differences(saved, now, for_training)
  if differing:
    listing = "\n  ".join(differing)
    raise CheckpointError(
      f"The checkpoint {path} belongs to another run:\n  {listing}\n"
      "Use these values again, or another --workdir."
    )
