"""Lets one run at a time write to a workdir.

A run locks `.running.lock` and describes itself in `.running.json` beside it:
host, process and start. The lock is that of the operating system (flock), which
ends with the process that holds it, however that ends; a file that is left
behind locks nothing.

Over NFS, Linux passes the lock on to the server, so that it holds between hosts
(NFS 4, or 3 with its lock daemon; not if mounted with `nolock` or
`local_lock=flock`, where it holds within a host). Where a file system has no
such locks at all, filelock falls back to the existence of a file.
"""

import contextlib
import datetime
import functools
import json
import os
import pathlib
import socket
import time
from collections.abc import Callable, Generator
from typing import Any, TypeVar

import filelock
import jax
import numpy as np

from inp_former_jax.atomic import write_json
from inp_former_jax.processes import exchange
from inp_former_jax.training.checkpoints.workdirs import prepare_workdir
from inp_former_jax.training.identity import CheckpointError
from inp_former_jax.training.progress import announce

LOCK, HOLDER = ".running.lock", ".running.json"
WHILE_RUNNING = "while_running"  # results of evaluations beside a run
_SECONDS = 0.5  # a run that has just ended may still be closing its files
# A server of network files frees the locks of a lost host after its lease.
_LEASE_SECONDS = 120.0
_RUN, _EVALUATION = "run", "evaluation"
_Result = TypeVar("_Result")


@contextlib.contextmanager
def holding(workdir: str | os.PathLike) -> Generator[pathlib.Path]:
  """Creates a workdir and holds it, so that no other run writes to it.

  With several processes, the first one holds it for all of them. An evaluation
  is waited for, and so is, for two minutes, a run on another host, which may be
  lost.

  Args:
    workdir: Folder for everything that the run writes.

  Yields:
    The absolute path of the workdir.

  Raises:
    CheckpointError: If the workdir cannot be written or locked, or another run
      holds it. All processes raise it.
    ValueError: If `workdir` is empty.
  """
  path = prepare_workdir(workdir, needed=0)
  with _attempt(path, _RUN) as held:
    if not held:
      raise CheckpointError(
        f"The workdir {path} is in use by {_holder(path)}. Wait until that run "
        "has ended, or choose another workdir."
      )
    yield path


@contextlib.contextmanager
def holding_or_beside(workdir: str | os.PathLike) -> Generator[pathlib.Path]:
  """Holds a workdir to write results to it, or finds another folder for them.

  Args:
    workdir: Folder of a run, which may be under way.

  Yields:
    The absolute path of the workdir; or that of `while_running` within it if a
    run holds the workdir, because its own results would be lost or mixed.

  Raises:
    CheckpointError: If the workdir cannot be written or locked.
    ValueError: If `workdir` is empty.
  """
  path = prepare_workdir(workdir, needed=0)
  with _attempt(path, _EVALUATION) as held:
    if not held:
      announce(
        f"{path} is in use by {_holder(path)}: the results are written to "
        f"{path / WHILE_RUNNING}."
      )
    yield path if held else path / WHILE_RUNNING


def held(
  job: Callable[..., _Result],
) -> Callable[..., _Result]:
  """Makes a job hold its workdir, as a decorator.

  Args:
    job: A function of a config, a workdir and options by name.

  Returns:
    The same function, which is given the absolute path of its workdir.
  """

  @functools.wraps(job)
  def holding_it(
    config: Any, workdir: str | os.PathLike, **options: Any
  ) -> _Result:
    with holding(workdir) as path:
      return job(config, path, **options)

  return holding_it


@contextlib.contextmanager
def _attempt(path: pathlib.Path, job: str) -> Generator[bool]:
  """Tries to hold a folder; yields, on all processes, whether this run does."""
  # Not thread_local: the thread that ends a run may be another.
  lock = filelock.FileLock(path / LOCK, thread_local=False)
  began, told = time.monotonic(), False
  with contextlib.ExitStack() as stack:
    while True:
      failure = _try(lock, path, job, stack)
      waits = (
        job == _RUN
        and isinstance(failure, filelock.Timeout)
        and _may_soon_be_free(path, time.monotonic() - began)
      )
      # All meet after every attempt, because an exchange between processes
      # fails if one of them is late by minutes.
      found = exchange.gather_processes(np.array([failure is not None, waits]))
      refused, waits = bool(found[:, 0].any()), bool(found[:, 1].any())
      if not waits:
        break
      if not told:
        announce(f"{path} is in use by {_holder(path)}; waiting for it.")
        told = True
    if failure is not None and not isinstance(failure, filelock.Timeout):
      raise CheckpointError(
        f"The workdir {path} cannot be locked ({failure}). Choose a workdir on "
        "a file system that has locks."
      ) from failure
    yield not refused


def _try(
  lock: filelock.BaseFileLock,
  path: pathlib.Path,
  job: str,
  stack: contextlib.ExitStack,
) -> Exception | None:
  """Tries to hold a folder on the first process; returns why that failed."""
  if jax.process_index() != 0:
    return None
  try:
    stack.enter_context(lock.acquire(timeout=_SECONDS))
    _describe_this_process(path, job, stack)
  except (filelock.Timeout, OSError) as error:
    return error
  return None


def _may_soon_be_free(path: pathlib.Path, waited: float) -> bool:
  """Whether the holder only evaluates, or is on a host that may be lost."""
  holder = _read_holder(path)
  if holder.get("job") == _EVALUATION:
    return True
  elsewhere = holder.get("host", socket.gethostname()) != socket.gethostname()
  return elsewhere and waited < _LEASE_SECONDS


def _describe_this_process(
  path: pathlib.Path, job: str, stack: contextlib.ExitStack
) -> None:
  now = datetime.datetime.now(datetime.UTC)
  content = {
    "host": socket.gethostname(),
    "pid": os.getpid(),
    "job": job,
    "started": now.isoformat(timespec="seconds"),
  }
  write_json(path / HOLDER, content)
  stack.callback((path / HOLDER).unlink, missing_ok=True)


def _holder(path: pathlib.Path) -> str:
  """Describes the run that holds a folder."""
  found = _read_holder(path)
  if not {"pid", "host", "started"} <= found.keys():
    return f"another run, which has locked {path / LOCK}"
  return (
    f"process {found['pid']} on {found['host']}, started {found['started']}"
  )


def _read_holder(path: pathlib.Path) -> dict[str, Any]:
  try:
    found = json.loads((path / HOLDER).read_text(encoding="utf-8"))
  except (OSError, ValueError):
    return {}
  return found if isinstance(found, dict) else {}
