"""Decides how many processes decode images, and readies grain for them."""

import multiprocessing
import os
import re
import signal
import threading

from absl import flags

AUTOMATIC = -1
# With so few cores, threads decode as fast as processes: most of the time is
# spent in Pillow, which lets other threads run meanwhile.
_FEW_CORES = 4
_MOST = 16
# A process takes seconds to start and 0.2 GB of memory, as much as decoding
# about so many images takes.
_LEAST_IMAGES = 128
_TIME_TO_SAVE = 30.0  # seconds
# More than this only wait for each other.
_MOST_PER_CORE = 4


def number_of_processes(num_workers: int, num_images: int) -> int:
  """Returns how many processes decode; 0 stands for threads.

  Args:
    num_workers: The number that the user asks for. AUTOMATIC (-1) takes threads
      where there are few cores or images, and otherwise leaves a core to the
      training and starts a process on each of the others, at most 16.
    num_images: The number of images that this process decodes, in training in
      an epoch.

  Raises:
    ValueError: If `num_workers` is below -1, or above 16 and above four for
      each core.
  """
  if num_workers < AUTOMATIC:
    raise ValueError(
      f"`num_workers` is {num_workers}; expected a number of processes, 0 for "
      f"threads, or {AUTOMATIC} for as many as suit this machine."
    )
  cores = usable_cores()
  most = max(_MOST, _MOST_PER_CORE * cores)
  if num_workers > most:
    raise ValueError(
      f"`num_workers` is {num_workers}; expected at most {most} processes for "
      f"the {cores} cores here, as each takes 0.2 GB. {AUTOMATIC} starts as "
      "many as suit this machine."
    )
  if num_workers != AUTOMATIC:
    return num_workers
  if cores <= _FEW_CORES:
    return 0
  processes = min(cores - 1, _MOST, num_images // _LEAST_IMAGES)
  return processes if processes > 1 else 0


def describe_death(error: RuntimeError) -> str:
  """Describes for the user the death of a worker process.

  Args:
    error: An error of grain's.

  Returns:
    What happened and what to do; empty if the error tells of something else.
  """
  found = re.search(r"terminated unexpectedly .*code (-?\d+)", str(error))
  if not found:
    return ""
  cause = "it was killed, often for lack of memory"
  if found[1] != "-9":
    cause = "what it printed is above"
  return (
    f"A process that decodes images ended with exit code {found[1]} ({cause}). "
    "The same command resumes; lower `num_workers` if memory is short, 0 takes "
    "threads."
  )


def usable_cores() -> int:
  """Returns the number of cores that this process may run on."""
  if hasattr(os, "sched_getaffinity"):  # not on macOS and Windows
    return len(os.sched_getaffinity(0))
  return os.cpu_count() or 1


def ready_worker(index: int, count: int) -> None:
  """Makes this worker process end when its parent does, and not before.

  Args:
    index: The number of this worker, as grain passes it.
    count: The number of workers, likewise.
  """
  del index, count
  _outlive_signals()
  _end_with_parent()


def _outlive_signals() -> None:
  """Keeps this worker at work while its run, which got a signal too, saves.

  Ctrl-C and launchers signal all processes of a group, but the step under way
  needs the workers. After SIGTERM they end by themselves if that takes too
  long.
  """
  signal.signal(signal.SIGINT, signal.SIG_IGN)
  signal.signal(signal.SIGTERM, _leave_later)


def _leave_later(number: int, frame) -> None:
  timer = threading.Timer(_TIME_TO_SAVE, os._exit, (128 + number,))
  timer.daemon = True
  timer.start()


def let_grain_read_its_flags() -> None:
  """Marks grain's absl flags as parsed if no `app.run` has parsed them.

  Without this, starting workers fails in a notebook, a test or a library.
  """
  if not flags.FLAGS.is_parsed():
    for name in flags.FLAGS:
      if name.startswith("grain_"):
        flags.FLAGS[name].present = True


def _end_with_parent() -> None:
  """Makes this worker process end when its parent does, however that ends."""
  parent = multiprocessing.parent_process()
  assert parent is not None  # Grain calls this in its workers alone.

  # A signal of Linux at the parent's death would come already when the thread
  # that started the worker ends.
  def watch() -> None:
    parent.join()
    os._exit(1)

  threading.Thread(target=watch, daemon=True).start()
