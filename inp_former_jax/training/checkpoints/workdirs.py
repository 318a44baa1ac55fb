"""Finds and creates the folder that a run writes everything to."""

import os
import pathlib
import shutil
import tempfile

from inp_former_jax.buckets import mount_hint, scheme_of
from inp_former_jax.training.identity import CheckpointError


def absolute_workdir(workdir: str | os.PathLike) -> pathlib.Path:
  """Returns the absolute path of a workdir.

  Args:
    workdir: Folder of a run, which need not exist.

  Raises:
    CheckpointError: If it is the address of a bucket.
    ValueError: If it is empty, which would stand for the current folder.
  """
  refuse_buckets(workdir)
  if not os.fspath(workdir).strip():
    raise ValueError(
      "`workdir` is empty; expected a folder for the results. Name '.' for the "
      "current one."
    )
  return pathlib.Path(workdir).expanduser().absolute()


def prepare_workdir(workdir: str | os.PathLike, needed: int) -> pathlib.Path:
  """Creates the workdir and makes sure that there is room for its checkpoints.

  Args:
    workdir: Folder for everything that the run writes.
    needed: Number of bytes that must be free.

  Returns:
    The absolute path of the workdir.

  Raises:
    CheckpointError: If the workdir cannot be written, has a file in place of
      its checkpoints, or too little space is left.
    ValueError: If `workdir` is empty.
  """
  path = absolute_workdir(workdir)
  for folder in (path, path / "checkpoints"):
    # Orbax would wait for minutes before it reports the latter.
    if folder.exists() and not folder.is_dir():
      raise CheckpointError(
        f"{folder} is a file; expected a folder, or nothing yet. Choose "
        "another workdir, or move the file away."
      )
  try:
    path.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=path) as probe:
      probe.write(b"probe")
    free = shutil.disk_usage(path).free
  except OSError as error:
    raise CheckpointError(
      f"The workdir {path} cannot be written ({error.strerror}). "
      "Choose another workdir, or fix its permissions."
    ) from error
  if free < needed:
    raise CheckpointError(
      f"The workdir {path} has {free / 1e6:.0f} MB free; the checkpoints and "
      f"results need {needed / 1e6:.0f} MB. Free some space, lower "
      "`keep`, or choose another workdir."
    )
  return path


def refuse_buckets(workdir: str | os.PathLike) -> None:
  """Refuses addresses such as gs://bucket, which would become folders here.

  Args:
    workdir: Folder of a run.

  Raises:
    CheckpointError: If it is such an address.
  """
  scheme = scheme_of(workdir)
  if scheme:
    raise CheckpointError(
      f"The workdir {workdir} is in a bucket, where logs and results cannot be "
      f"written. {mount_hint(scheme)} The checkpoints of a training run alone "
      "can be in Google Cloud Storage, by config.checkpoint.folder."
    )
