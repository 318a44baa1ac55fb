"""Ends all processes of a run together, and tells the others the reason.

A process that waits for another in a collective cannot be woken, so that each
listens in a thread, and ends itself when another one says that it ends.
"""

import contextlib
import json
import os
import sys
import threading
import time
from typing import NoReturn

import psutil

from inp_former_jax.processes import coordination, messages
from inp_former_jax.terminal import escaped, shortened

_NOTICE = "inp_former_jax/ending/notice"
_LEAVING = "inp_former_jax/ending/leaving"
# Seconds within which a living process answers, whatever it is busy with.
PATIENCE = 8.0
_LISTENING = 2.0
_ending = threading.Lock()


def end_all(code: int, line: str) -> NoReturn:
  """Ends this process, and all others with it.

  Args:
    code: Exit code of all processes.
    line: What the user is told.
  """
  _claim(code)
  if messages.index():
    # At once: if the first process's host is lost, JAX aborts this one.
    print_line(line)
  notice = {"process": messages.index(), "code": code, "line": line}
  if messages.several():
    with contextlib.suppress(RuntimeError):  # said below
      messages.put(_NOTICE, json.dumps(notice))
  _leave(code, "" if messages.index() else line)


def end_now(code: int, line: str) -> NoReturn:
  """Ends this process at once, without a word to the others.

  Args:
    code: Exit code.
    line: What the user is told.
  """
  print_line(line)
  end_children()
  # Not sys.exit: this may be a thread, while the main one is in a collective.
  os._exit(code)


def end_children() -> None:
  """Kills what this process has started, but for the service of messages."""
  for child in psutil.Process().children(recursive=True):
    if not coordination.is_service(child.pid):
      with contextlib.suppress(psutil.NoSuchProcess):
        child.kill()


def listen() -> threading.Thread:
  """Starts the thread that ends this process when another one ends.

  Returns:
    The thread, which ends soon after `jax.distributed.shutdown`.
  """
  thread = threading.Thread(target=_listen, name="ending", daemon=True)
  thread.start()
  return thread


def _listen() -> None:
  while True:
    try:
      text = messages.get(_NOTICE, _LISTENING)
    except (RuntimeError, AssertionError):
      return  # shut down, or the first host is lost: then JAX aborts this one
    if text:
      notice = json.loads(text)
      _claim(notice["code"])
      who = f"process {notice['process']}"
      line = notice["line"].removeprefix("error: ").split("\n(--verb")[0]
      if notice["code"] == 1:
        text = f"{who} ended, and this process with it: {line}"
        line = f"error: {escaped(text)}"
      else:
        line = f"Ended with {who}: {line}"
      _leave(notice["code"], line)


def _claim(code: int) -> None:
  """Lets one thread end this process; the others wait for that."""
  if not _ending.acquire(blocking=False):
    time.sleep(4 * PATIENCE)
  # Nothing below may delay the end, not even a first process that hangs.
  timer = threading.Timer(3 * PATIENCE, os._exit, (code,))
  timer.daemon = True
  timer.start()


def _others_that_stay() -> list[int]:
  """Waits for all others to leave; returns those that do not."""
  staying = set(range(messages.count())) - {messages.index()}
  deadline = time.monotonic() + PATIENCE
  while staying and time.monotonic() < deadline:
    staying -= {int(number) for number in messages.under(_LEAVING)}
    time.sleep(0.05)
  return sorted(staying)


def _leave(code: int, line: str) -> NoReturn:
  """Ends this process when the others do; names those that do not answer."""
  silent = []
  if messages.several():
    try:
      messages.put(f"{_LEAVING}/{messages.index()}", "")
      silent = _others_that_stay()
    except RuntimeError:
      silent = [0]  # its host serves the messages
  if silent:
    line = _silent(silent) + line.removeprefix("error: ")
  print_line(line)
  if messages.index() == 0:
    time.sleep(0.5)  # where this ends a container, the service ends with it
  end_now(code, "")


def name_processes(numbers: list[int]) -> str:
  """Returns "process 3", or "processes 3, 4", with the first ten numbers."""
  noun = "process" if len(numbers) == 1 else "processes"
  return f"{noun} {shortened(numbers, 10)}"


def _silent(numbers: list[int]) -> str:
  who = name_processes(numbers)
  return (
    f"error: the {who} gave no answer: killed, or the host is lost. Start all "
    "processes again to resume from the newest checkpoint. "
  )


def print_line(line: str) -> None:
  """Prints the last line of a command, below a progress bar if need be."""
  try:
    if sys.stdout.isatty():
      print("\x1b[?25h", end="")  # a progress bar hides the cursor
    sys.stdout.flush()
    if line:
      print(line, file=sys.stderr, flush=True)
  except (OSError, ValueError):
    pass  # the output is closed
