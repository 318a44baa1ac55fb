"""Stops training by a signal: saves at the next step, and exits with a code.

A run ends with 143 after SIGTERM and with 130 after SIGINT (Ctrl-C), as shells
expect. Several processes save at the same step, which JAX's preemption service
finds, whichever of them received the signal.
"""

import contextlib
import datetime
import faulthandler
import json
import logging
import signal
import socket
import threading
import time
import traceback
from collections.abc import Generator

import jax
from jax.experimental import multihost_utils

from inp_former_jax.processes import ending, liveness, messages
from inp_former_jax.terminal import escaped

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
# Launchers may send one signal twice: to the process and to its group.
_SAME_SIGNAL = 1.0
_REQUEST = "inp_former_jax/preemption/request"
# The key by which JAX's own notifier tells all processes of a SIGTERM.
_JAX_NOTICE = "RECEIVED_PREEMPTION_NOTICE"


class Stopped(SystemExit):
  """Raised when a run has saved its state and has to end.

  Attributes:
    code: Exit code for the process.
    line: What happened, for the user.
  """

  def __init__(self, signal_number: int, line: str):
    """Describes a stop.

    Args:
      signal_number: The signal that asked for it.
      line: What happened, for the user.
    """
    super().__init__(exit_code(signal_number))
    self.line = line


class Interrupted(BaseException):
  """Raised by a signal within work that can be abandoned."""


def exit_code(signal_number: int) -> int:
  """Returns the exit code after a signal, as shells count."""
  return 128 + signal_number


class Preemption:
  """Whether a run has to stop, because of a signal or a preemption notice.

  As a context manager, for commands, it handles SIGTERM and SIGINT: during the
  steps the first signal asks for a stop; at any other time, when nothing can be
  lost, and at a second signal, the process ends at once. It also ends all
  processes if one of them fails. Without entering it no signal is touched, and
  only JAX's own preemption notices count, where there are several processes.
  """

  def __init__(self):
    """Prepares for a run; handles no signal yet."""
    self._signal = 0  # the first signal of this process
    self._stopping = False
    self._guarded = self._interruptible = False
    self._bytes = self._handled = 0
    self._first_time = 0.0
    self._left = threading.Event()  # the other processes
    self._threads: list[threading.Thread] = []

  # Called by the run.

  @property
  def stopping(self) -> bool:
    """Whether the next checkpoint is the last one before the stop."""
    return self._stopping

  def reached(self, step: int) -> bool:
    """Whether to save and stop now; to be asked after every step.

    All processes must ask, and get True at the same step. It costs less than a
    microsecond and waits for no device.

    Args:
      step: Number of steps taken. Orbax asks JAX with the same number when it
        saves, so that it may not be another one.
    """
    self._guarded = True
    if not messages.several():
      self._stopping = bool(self._signal)
    elif messages.has_preemption_notices():
      self._stopping = multihost_utils.reached_preemption_sync_point(step)
    return self._stopping

  @contextlib.contextmanager
  def interrupting(self) -> Generator[None]:
    """Lets a signal interrupt what is within, if there is one process.

    Raises:
      Interrupted: When a signal comes.
    """
    self._interruptible = not messages.several()
    try:
      self._raise_if_interrupted()
      yield
    except Interrupted:
      self._stopping = True
      raise
    finally:
      self._interruptible = False

  def stopped(self, step: int, total_steps: int) -> Stopped:
    """Returns what to raise when the state is saved.

    Args:
      step: Number of steps taken.
      total_steps: Number of steps of the whole run.
    """
    number, source = self._signal, ""
    if messages.several():
      number, source = self._request()
    return Stopped(
      number,
      f"Stopped by {_name(number)}{source} at step {step} of {total_steps}; "
      "its checkpoint is saved. The same command resumes there.",
    )

  def finish(self) -> None:
    """Says that the last step is saved, so that signals may end the process.

    Raises:
      Stopped: If a signal came too late for a stop at a step.
    """
    self._guarded = False
    if messages.several() and messages.has_preemption_notices():
      # The next model of this run begins to count again.
      multihost_utils.reached_preemption_sync_point(0)
    if not self._signal:
      return
    line = (
      f"Stopped by {_name(self._signal)} after the last step, whose checkpoint "
      "is saved. The same command evaluates it."
    )
    if messages.several():
      ending.end_all(exit_code(self._signal), line)
    raise Stopped(self._signal, line)

  def _request(self) -> tuple[int, str]:
    text = messages.get(_REQUEST, 1.0)
    if text is None:  # a notice of JAX's own
      return signal.SIGTERM, ""
    request = json.loads(text)
    return request["signal"], f" to process {request['process']}"

  # Handling of signals.

  def __enter__(self) -> "Preemption":
    """Handles SIGTERM and SIGINT from now on; in the main thread only."""
    self._incoming, self._outgoing = socket.socketpair()
    self._outgoing.setblocking(False)
    self._previous_fd = signal.set_wakeup_fd(
      self._outgoing.fileno(), warn_on_full_buffer=False
    )
    self._previous = {n: signal.signal(n, self._handle) for n in _SIGNALS}
    threading.Thread(target=self._listen, name="signals", daemon=True).start()
    return self

  def joined(self) -> None:
    """Restores the handlers that JAX replaced, and listens to the others."""
    for number in _SIGNALS:
      signal.signal(number, self._handle)
    if messages.several():
      self._threads = [ending.listen(), liveness.watch(self._left)]
      if faulthandler.is_enabled():
        # JAX aborts when a host is lost; all traces would hide its message.
        faulthandler.enable(all_threads=False)
    # Orbax says it several times; the last line of the run says more.
    logging.getLogger("absl").addFilter(
      lambda record: "preemption sync point" not in record.getMessage()
    )

  def __exit__(self, kind, error, trace) -> None:
    """Ends the other processes after an error; gives the signals back."""
    if isinstance(error, Stopped):
      if self._signal or messages.index() == 0:
        ending.print_line(error.line)
    elif error is not None and messages.several():
      ending.end_all(1, _describe(error))
    jax.distributed.shutdown()  # waits for the other processes
    self._left.set()
    for thread in self._threads:
      thread.join(10.0)  # Python cannot end while one waits in JAX's C++
    if isinstance(error, Stopped):
      ending.end_children()  # those that decode images
    for number, handler in self._previous.items():
      signal.signal(number, handler or signal.SIG_DFL)
    signal.set_wakeup_fd(self._previous_fd)
    self._outgoing.close()

  def _handle(self, number: int, frame) -> None:
    """Runs in the main thread, as soon as that is in Python."""
    self._handled += 1
    self._signal = self._signal or number
    # The thread has heard of it by the wake-up file, unless a library that
    # runs an event loop (orbax with uvloop) had put its own there.
    with contextlib.suppress(OSError):
      self._outgoing.send(b"\0")
    self._raise_if_interrupted()

  def _raise_if_interrupted(self) -> None:
    if self._interruptible and self._signal:
      self._interruptible = False
      raise Interrupted

  def _listen(self) -> None:
    """Runs in a thread: the main one may be in XLA for minutes."""
    with self._incoming:
      while numbers := self._incoming.recv(64):
        for number in filter(None, numbers):
          self._bytes += 1
          self._signal = self._signal or number
        self._count_signals()

  def _count_signals(self) -> None:
    count = max(self._bytes, self._handled)
    if not count:
      return
    now = time.monotonic()
    if not self._first_time:
      self._first_time = now
      self._first_signal()
    elif count > 1 and now - self._first_time > _SAME_SIGNAL:
      ending.end_now(
        exit_code(self._signal), "Stopped at once by a second signal."
      )
    else:
      # One signal: sent twice, or heard of in both ways.
      self._bytes = self._handled = 1

  def _first_signal(self) -> None:
    name = _name(self._signal)
    if not self._guarded:
      ending.end_all(
        exit_code(self._signal),
        f"Stopped by {name}; no step was under way. The same command starts "
        "the run again.",
      )
    if messages.several():
      request = {"signal": self._signal, "process": messages.index()}
      with contextlib.suppress(RuntimeError):
        messages.put(_REQUEST, json.dumps(request))
        messages.put(
          _JAX_NOTICE, datetime.datetime.now(datetime.UTC).isoformat()
        )


def _name(number: int) -> str:
  return signal.Signals(number).name


def _describe(error: BaseException) -> str:
  if isinstance(error, SystemExit):
    return str(error.code)
  traceback.print_exception(error)
  text = f"{type(error).__name__}: {error}"
  return f"error: {escaped(text)}"
