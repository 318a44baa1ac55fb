"""Starts JAX's coordination service in a process of its own.

JAX runs the service, by which all processes of a run exchange messages, within
process 0. If that process is killed, for lack of memory for example, JAX aborts
all others in C++, and none of them can say why. A service apart outlives it
until the others have ended as they do after the loss of any other process.
"""

import contextlib
import json
import subprocess
import sys
from collections.abc import Generator

# The service has no public name; `jax.distributed.initialize` starts it.
from jax._src import distributed

from inp_former_jax.processes import coordination_service

_started: list[int] = []


@contextlib.contextmanager
def apart() -> Generator[None]:
  """Lets `jax.distributed.initialize` start the service as its own process.

  Only process 0 starts one.

  Raises:
    RuntimeError: If the service cannot be started, with its reason.
  """
  extension = distributed._jax
  within_this_process = extension.get_distributed_runtime_service
  extension.get_distributed_runtime_service = _Service
  try:
    yield
  finally:
    extension.get_distributed_runtime_service = within_this_process


def is_service(process_id: int) -> bool:
  """Whether a process, by the system's number, is a service started here."""
  return process_id in _started


class _Service:
  """Stands for the service in the process that has started it."""

  def __init__(self, *args, **kwargs):
    """Starts the service, with the arguments that JAX gives its own."""
    self._process = subprocess.Popen(
      [
        sys.executable,
        "-P",  # nothing beside this file is to be imported
        coordination_service.__file__,
        distributed._jax.__name__,
        json.dumps([args, kwargs]),
      ],
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      text=True,
      start_new_session=True,  # out of the reach of Ctrl-C
    )
    _started.append(self._process.pid)
    assert self._process.stdout is not None
    said = self._process.stdout.readline().strip()
    if said != coordination_service.SERVING:
      reason = said or "see its error above"
      raise RuntimeError(f"JAX's coordination service did not start: {reason}")

  def shutdown(self) -> None:
    """Ends the service, which all processes have left."""
    with contextlib.suppress(BrokenPipeError):
      self._process.communicate(coordination_service.SHUTDOWN + "\n")
    self._process.wait()
