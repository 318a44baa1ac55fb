"""Finds the image files that arrive in a folder, once they are complete."""

import os
import pathlib
import time
from collections.abc import Callable, Iterator

from inp_former_jax.data.errors import DataError
from inp_former_jax.data.image_files import find_images

State = tuple[int, int]  # size in bytes, and time of change in ns


def new_images(
  folder: pathlib.Path,
  *,
  known: Callable[[pathlib.Path], bool],
  excluded: Callable[[pathlib.Path], bool] = lambda path: False,
  warn: Callable[[str], None] = lambda text: None,
  interval: float = 0.5,
  quiet: float = 1.0,
) -> Iterator[list[pathlib.Path]]:
  """Yields new image files for ever, those that are already there first.

  The folder is listed again and again, which also works for network drives. A
  file is new if it has not been yielded yet, or has changed since.

  Args:
    folder: The folder, which is searched with its subfolders.
    known: Whether a file that is met for the first time was answered before.
    excluded: Whether a file never counts.
    warn: Called with an error if the folder cannot be listed, as can happen on
      network drives; called once until it can be listed again.
    interval: Seconds between two listings.
    quiet: Seconds for which a file must not change, to be taken as complete.

  Yields:
    The files that have become complete since the listing before, oldest first;
    never an empty list.

  Raises:
    DataError: If there is no such folder at the start.
  """
  done: dict[pathlib.Path, State] = {}
  waiting: dict[pathlib.Path, tuple[State, float]] = {}
  if not folder.is_dir():
    raise DataError(f"{folder} is no folder, so nothing can arrive in it.")
  warned = False
  while True:
    now, ready = time.monotonic(), []
    try:
      found = [path for path in find_images(folder) if not excluded(path)]
      warned = False
    except (DataError, OSError) as error:
      if not warned:
        warn(f"{error} Trying again.")
      warned = True
      time.sleep(interval)
      continue
    present = {path: _state(path) for path in found}
    for path, state in present.items():
      if state is None or done.get(path) == state:
        continue
      if path not in done and known(path):
        done[path] = state
        continue
      before, since = waiting.get(path, (None, now))
      if before != state:
        waiting[path] = state, now
      elif now - since >= quiet:
        ready.append(path)
        done[path] = state
        del waiting[path]
    # What was removed is forgotten, so that memory does not grow with time.
    done = {path: state for path, state in done.items() if path in present}
    waiting = {path: w for path, w in waiting.items() if path in present}
    if ready:
      yield sorted(ready, key=lambda path: (done[path][1], path))
    else:
      time.sleep(interval)


def _state(path: pathlib.Path) -> State | None:
  try:
    status = os.stat(path)
  except OSError:
    return None  # it was removed a moment ago
  return status.st_size, status.st_mtime_ns
