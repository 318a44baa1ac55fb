"""Serves JAX's coordination, in a process that `coordination` starts.

python coordination_service.py MODULE ARGUMENTS

It imports neither JAX nor anything else of this package.
"""

import importlib
import json
import os
import signal
import sys
import time

import psutil

# How long the others may take to end, once the process that started this one
# is gone.
_LINGERING = 60.0
SERVING, SHUTDOWN = "serving", "shutdown"


def main() -> None:
  """Serves until the process that started this one ends, and the others did."""
  # They are meant for the processes that train, which end it in time.
  for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, signal.SIG_IGN)
  module, arguments = sys.argv[1:]
  args, kwargs = json.loads(arguments)
  start = importlib.import_module(module).get_distributed_runtime_service
  try:
    service = start(*args, **kwargs)
  except RuntimeError as error:
    print(str(error).splitlines()[0], flush=True)
    return
  print(SERVING, flush=True)
  if sys.stdin.readline().strip() == SHUTDOWN:
    service.shutdown()
    return
  deadline = time.monotonic() + _LINGERING
  while _has_clients() and time.monotonic() < deadline:
    time.sleep(0.2)
  os._exit(0)  # without waiting for those that are gone


def _has_clients() -> bool:
  """Whether another process is still connected."""
  return any(
    connection.status == psutil.CONN_ESTABLISHED
    for connection in psutil.Process().net_connections("tcp")
  )


if __name__ == "__main__":
  main()
