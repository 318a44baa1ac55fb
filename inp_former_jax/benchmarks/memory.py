"""The memory of this process: its resident size, now and at its highest."""

import pathlib
import re
import sys
import threading

import psutil

_STATUS = pathlib.Path("/proc/self/status")


def resident() -> int:
  """Returns the number of bytes of this process that are in memory now."""
  return psutil.Process().memory_info().rss


def highest_resident() -> int:
  """Returns the highest resident size since this process began, in bytes."""
  if _STATUS.is_file():
    # Not ru_maxrss, which on Linux begins with that of the parent process.
    found = re.search(r"VmHWM:\s*(\d+) kB", _STATUS.read_text())
    if found:
      return int(found[1]) * 1024
  import resource  # not on Windows

  size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  return size if sys.platform == "darwin" else size * 1024


class Watch:
  """Follows the resident size of this process while it is entered.

  Attributes:
    before: The resident size when it was entered, in bytes.
    highest: The highest since then, in bytes; complete when it is left.
  """

  def __init__(self, seconds: float = 0.01):
    """Creates a watch.

    Args:
      seconds: Time between two looks at the resident size. A peak of the whole
        process's life is seen however short it is.
    """
    self.before = self.highest = 0
    self._seconds = seconds
    self._part = 0
    self._end = threading.Event()
    self._thread = threading.Thread(target=self._follow, daemon=True)

  def __enter__(self) -> "Watch":
    """Begins to follow."""
    self.before = self.highest = self._part = resident()
    self._highest_before = highest_resident()
    self._thread.start()
    return self

  def __exit__(self, *_) -> None:
    """Ends it."""
    self._end.set()
    self._thread.join()
    self._look()
    if highest_resident() > self._highest_before:
      self.highest = max(self.highest, highest_resident())

  def highest_of_part(self) -> int:
    """Returns the highest since the last call, in bytes."""
    self._look()
    part, self._part = self._part, resident()
    return part

  def _follow(self) -> None:
    while not self._end.wait(self._seconds):
      self._look()

  def _look(self) -> None:
    size = resident()
    self.highest = max(self.highest, size)
    self._part = max(self._part, size)
