"""Decides how many processes decode images, and readies grain for them."""

import os
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


def number_of_processes(num_workers: int, num_images: int) -> int:
  """Returns how many processes decode; 0 stands for threads.

  Args:
    num_workers: The number that the user asks for. AUTOMATIC (-1) takes threads
      where there are few cores or images, and otherwise leaves a core to the
      training and starts a process on each of the others, at most 16.
    num_images: The number of images that this process decodes, in training in
      an epoch.

  Raises:
    ValueError: If `num_workers` is below -1.
  """
  if num_workers < AUTOMATIC:
    raise ValueError(
      f"`num_workers` is {num_workers}; expected a number of processes, 0 for "
      f"threads, or {AUTOMATIC} for as many as suit this machine."
    )
  if num_workers != AUTOMATIC:
    return num_workers
  cores = usable_cores()
  if cores <= _FEW_CORES:
    return 0
  processes = min(cores - 1, _MOST, num_images // _LEAST_IMAGES)
  return processes if processes > 1 else 0


def usable_cores() -> int:
  """Returns the number of cores that this process may run on."""
  if hasattr(os, "sched_getaffinity"):  # not on macOS and Windows
    return len(os.sched_getaffinity(0))
  return os.cpu_count() or 1


def outlive_signals(index: int, count: int) -> None:
  """Keeps this worker at work while its run, which got a signal too, saves.

  Ctrl-C and launchers signal all processes of a group, but the step under way
  needs the workers. They end with the main process; after SIGTERM by themselves
  if that takes too long.

  Args:
    index: The number of this worker, as grain passes it.
    count: The number of workers.
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
