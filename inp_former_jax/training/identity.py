"""Compares the identity of a checkpoint with that of a run or a model."""

import hashlib
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from inp_former_jax.data.records import Dataset, Record

# Fields that may differ between the run that saved a checkpoint and the one
# that resumes it, because they change neither the parameters nor the order of
# the data.
FREE_FIELDS = (
  "cache",
  "cache_dir",
  "calibration",  # the training images tell what is held out
  "checkpoint",
  "data.num_threads",
  "data.num_workers",
  "data.layout",
  "data.root",
  "data.skip_unreadable",  # lets a run that stopped at an image be resumed
  "data.sources",
  "data.tfds",
  "data.tfds_dir",
  "evaluation",
  "log",
  "mesh",
  "model.attention",
  "model.encoder_weights",
  "model.remat",
  "teacher.weights",  # the file; `teacher_sha256` is its content
)
# Fields that may differ between the processes of a run: where a host keeps its
# files, and how it reads them.
HOST_FIELDS = (
  "cache_dir",
  "data.num_threads",
  "data.num_workers",
  "data.root",
  "data.sources",
  "data.tfds_dir",
  "model.encoder_weights",
)
# Fields that must agree for a checkpoint to be evaluated.
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
# Fields that must agree for its parameters to be trained further, on images of
# any size.
PARAMETER_FIELDS = (
  "model.encoder",
  "model.num_prototypes",
  "model.use_inps",
  "encoder",
)
# Fields that the identity of every INP-Former has.
_INP_FORMER_FIELDS = (
  "model.encoder",
  "model.num_prototypes",
  "model.use_inps",
  "encoder.name",
  "encoder.sha256",
)


class CheckpointError(RuntimeError):
  """Raised if a checkpoint cannot be used, or belongs to another run."""


def training_images(dataset: Dataset) -> dict[str, int | str]:
  """Returns number and checksum of the training images of a data set.

  Args:
    dataset: The data set of a run.

  Returns:
    "count", and "sha256" of their categories and names.
  """
  return _image_list(dataset.train)


def image_lists(dataset: Dataset) -> dict[str, int | str]:
  """Returns what all processes of a run must find in their data set.

  Args:
    dataset: The data set, as one process has read it.

  Returns:
    Number and checksum of the training, validation and test images.
  """
  splits = {
    "training images": dataset.train,
    "validation images": dataset.validation,
    "test images": dataset.test,
  }
  return {
    f"{split} ({fact})": value if fact == "count" else str(value)[:12]
    for split, records in splits.items()
    for fact, value in _image_list(records).items()
  }


def shared_fields(config: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the fields that must be the same in all processes of a run.

  Args:
    config: The config, as a nested dict.

  Returns:
    All but HOST_FIELDS, by names such as config.data.crop.
  """
  return {
    f"config.{field}": value
    for field, value in flatten(config).items()
    if not _within(field, HOST_FIELDS)
  }


def _image_list(records: Sequence[Record]) -> dict[str, int | str]:
  names = sorted(f"{r.category}/{r.image.name}" for r in records)
  digest = hashlib.sha256("\n".join(names).encode()).hexdigest()
  return {"count": len(names), "sha256": digest}


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
  """Flattens a nested dict to one with dotted names.

  Args:
    tree: A config or an identity, as a nested dict.
    prefix: Text to put before every name.

  Returns:
    The values by dotted name. Tuples become lists, as in JSON.
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
  saved: Mapping[str, Any],
  now: Mapping[str, Any],
  sections: tuple[str, ...] | None,
) -> list[str]:
  """Describes the fields, of these sections or of all, that differ."""
  lines = []
  # A converted checkpoint records nothing about a run, so that only the fields
  # it has can disagree.
  for field in sorted(saved):
    if _within(field, FREE_FIELDS):
      continue
    if sections is not None and not _within(field, sections):
      continue
    if saved[field] == now.get(field):
      continue
    if field == "training_images.sha256":  # says nothing to people
      lines.append("training_images: not the same files")
    else:
      lines.append(f"{field}: {saved[field]!r} there, {now.get(field)!r} here")
  return lines


def require_inp_former(
  path: str | os.PathLike, saved: Mapping[str, Any]
) -> None:
  """Makes sure that a checkpoint holds an INP-Former.

  Args:
    path: Path of the checkpoint, for the error message.
    saved: Identity of the checkpoint, by dotted names.

  Raises:
    CheckpointError: If it holds another model, such as a distilled student.
  """
  missing = [name for name in _INP_FORMER_FIELDS if name not in saved]
  if missing:
    raise CheckpointError(
      f"The checkpoint {path} is not that of an INP-Former: its record lacks "
      f"{', '.join(missing)}. Name the workdir of a training run, or of a "
      "converted checkpoint."
    )


def require_same_model(
  path: str | os.PathLike, saved: Mapping[str, Any], wanted: Mapping[str, Any]
) -> None:
  """Makes sure that a checkpoint holds the wanted model.

  Args:
    path: Path of the checkpoint, for the error message.
    saved: Identity of the checkpoint, by dotted names.
    wanted: Identity of the wanted model, by dotted names.

  Raises:
    CheckpointError: If one of MODEL_FIELDS differs. The message names every
      field that does.
  """
  require_same_run(path, saved, wanted, for_training=False)


def require_same_run(
  path: str | os.PathLike,
  saved: Mapping[str, Any],
  now: Mapping[str, Any],
  *,
  for_training: bool,
) -> None:
  """Makes sure that a checkpoint belongs to this run.

  Args:
    path: Path of the checkpoint, for the error message.
    saved: Identity of the checkpoint, by dotted names.
    now: Identity of this run, by dotted names.
    for_training: Whether all fields that influence training must agree, rather
      than MODEL_FIELDS alone.

  Raises:
    CheckpointError: If a field differs. The message names every field that
      does.
  """
  sections = None if for_training else MODEL_FIELDS
  differing = _differences(saved, now, sections)
  if differing:
    listing = "\n  ".join(differing)
    raise CheckpointError(
      f"The checkpoint {path} belongs to another run:\n  {listing}\n"
      "Set the values of the checkpoint again, or use another workdir."
    )


def require_same_start(
  workdir: pathlib.Path,
  saved: Mapping[str, Any],
  now: Mapping[str, Any],
  *,
  has_checkpoints: Callable[[], bool],
) -> None:
  """Makes sure that a run is the one that has been started in a workdir.

  Args:
    workdir: Folder of the run, which need not hold a checkpoint yet.
    saved: Config of the run that was started there, by dotted names.
    now: Config of this run, by dotted names.
    has_checkpoints: Tells whether the run that was started has saved any.

  Raises:
    CheckpointError: If a field that influences training differs. The message
      names every field that does.
  """
  differing = _differences(saved, now, None)
  if not differing:
    return
  listing = "\n  ".join(differing)
  if has_checkpoints():
    remedy = "Set these values again, or use another workdir."
  else:
    remedy = (
      "It holds no checkpoint yet: delete it to start anew, use another "
      "workdir, or set these values again."
    )
  raise CheckpointError(
    f"Another run was started in {workdir}:\n  {listing}\n{remedy}"
  )


def require_same_parameters(
  path: str | os.PathLike, saved: Mapping[str, Any], wanted: Mapping[str, Any]
) -> None:
  """Makes sure that a run can start from the parameters of a checkpoint.

  Args:
    path: Path of the checkpoint, for the error message.
    saved: Identity of the checkpoint, by dotted names.
    wanted: Identity of the run that is to start, by dotted names.

  Raises:
    CheckpointError: If one of PARAMETER_FIELDS differs, or the seed of a random
      encoder. The message names every field that does.
  """
  sections = PARAMETER_FIELDS
  if saved.get("encoder.sha256") == "random":  # its seed decides its values
    sections += ("seed",)
  differing = _differences(saved, wanted, sections)
  if differing:
    listing = "\n  ".join(differing)
    raise CheckpointError(
      f"Training cannot start from {path}, which `init_from` names:\n"
      f"  {listing}\nSet the values of the checkpoint, with the encoder's file "
      "as `encoder_weights` (for a converted checkpoint its "
      "encoder.safetensors), or name another workdir."
    )
