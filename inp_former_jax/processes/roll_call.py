"""The roll call: all processes meet before JAX connects them.

If a process is missing or does not fit, JAX waits for minutes and then aborts
in C++. So process 0 first listens at the coordinator's port itself: the others
say who they are, and hear at once what is wrong.
"""

import asyncio
import errno
import json
import socket
import time
from collections.abc import Mapping
from typing import Any

from inp_former_jax.terminal import shortened

_PURPOSE = "inp_former_jax roll call"
_LONGEST = 4096  # bytes of a greeting or an answer
_READING = 5.0  # seconds for a greeting, once connected
# The service of a run whose process 0 was killed keeps the port until the
# others have ended.
PORT_PATIENCE = 15.0  # seconds


class RollCallError(RuntimeError):
  """Raised if the processes do not come together."""


def hold(
  host: str,
  port: int,
  *,
  num_processes: int,
  process_id: int,
  versions: Mapping[str, str],
  seconds: float,
) -> None:
  """Waits until all processes have come, and all of them fit.

  Args:
    host: Name or address of the first process's host.
    port: Port that the first process listens at; it is free again afterwards.
    num_processes: Number of processes, this one included.
    process_id: Number of this process, from 0.
    versions: What must be the same everywhere, by name.
    seconds: How long to wait for the others.

  Raises:
    RollCallError: If a process does not come, if two of them have the same
      number, or if numbers of processes or versions differ. All processes that
      have come raise it.
  """
  me = {
    "purpose": _PURPOSE,
    "process_id": process_id,
    "num_processes": num_processes,
    "versions": dict(versions),
  }
  if process_id:
    problem = _report(host, port, me, seconds)
  else:
    problem = _call(me, port, seconds)
  if problem:
    raise RollCallError(problem)


def _call(me: dict[str, Any], port: int, seconds: float) -> str:
  """Waits for the other processes; returns what is wrong."""
  deadline = time.monotonic() + seconds
  patience = time.monotonic() + min(seconds, PORT_PATIENCE)
  while True:
    try:
      return asyncio.run(_RollCall(me).call(port, seconds))
    except OSError as error:
      in_use = error.errno == errno.EADDRINUSE
      if not in_use or time.monotonic() > patience:
        raise RollCallError(_cannot_listen(port, error)) from error
    time.sleep(0.3)
    seconds = max(1.0, deadline - time.monotonic())


class _RollCall:
  """What the first process knows of the others."""

  def __init__(self, me: dict[str, Any]):
    self._me = me
    self._present: dict[int, asyncio.StreamWriter] = {}
    self._done = asyncio.Event()
    self._problem = ""

  async def call(self, port: int, seconds: float) -> str:
    """Returns what is wrong, after telling all who are present."""
    if self._me["num_processes"] == 1:
      return ""
    server = await asyncio.start_server(
      self._greet, host=None, port=port, limit=_LONGEST
    )
    try:
      await asyncio.wait_for(self._done.wait(), seconds)
    except TimeoutError:
      self._problem = self._missing(seconds)
    server.close()
    answer = json.dumps({"purpose": _PURPOSE, "problem": self._problem})
    for writer in self._present.values():
      writer.write(answer.encode() + b"\n")
      writer.close()
    await asyncio.sleep(0.1)  # for the answers to be sent
    return self._problem

  async def _greet(self, reader, writer) -> None:
    try:
      line = await asyncio.wait_for(reader.readline(), _READING)
      greeting = _parse(line)
      number = int(greeting["process_id"])
    except (OSError, ValueError, KeyError, TypeError):
      writer.close()  # not one of us: a health check, or a port scan
      return
    problem = _mismatch(self._me, greeting)
    if not problem and number in self._present:
      problem = f"Two processes were started with --process_id={number}."
      number = -len(self._present)  # it has to hear of this, too
    self._present[number] = writer
    self._problem = self._problem or problem
    if self._problem or len(self._present) == self._me["num_processes"] - 1:
      self._done.set()

  def _missing(self, seconds: float) -> str:
    count = self._me["num_processes"]
    absent = sorted(set(range(1, count)) - self._present.keys())
    return (
      f"{len(absent)} of {count} processes did not come within {seconds:.0f} "
      f"seconds: --process_id={shortened(absent, 10)}. Start all of them "
      "with the same --coordinator and --num_processes; --join_timeout waits "
      "for longer."
    )


def _mismatch(me: dict[str, Any], other: dict[str, Any]) -> str:
  """Describes why another process does not fit; empty if it does."""
  who = f"process {other['process_id']}"
  mine, theirs = me["num_processes"], other.get("num_processes")
  if mine != theirs:
    return (
      f"The processes disagree: --num_processes is {mine} in process 0 and "
      f"{theirs} in {who}. Give all of them the same number."
    )
  if other["process_id"] not in range(1, mine):
    return f"A process came with --process_id={other['process_id']} of {mine}."
  for name, version in me["versions"].items():
    found = other.get("versions", {}).get(name)
    if found != version:
      return (
        f"The processes disagree: {name} is {version} in process 0 and {found} "
        f"in {who}. Install the same version everywhere."
      )
  return ""


def _report(host: str, port: int, me: dict[str, Any], seconds: float) -> str:
  """Says who we are to the first process; returns what is wrong."""
  deadline = time.monotonic() + seconds
  reason = ""
  while (left := deadline - time.monotonic()) > 0:
    try:
      with socket.create_connection((host, port), min(left, 5)) as connection:
        connection.settimeout(seconds + _READING)
        connection.sendall(json.dumps(me).encode() + b"\n")
        with connection.makefile("rb") as answers:
          return str(_parse(answers.readline(_LONGEST))["problem"])
    except (ValueError, KeyError, TypeError):
      reason = "something other than process 0 answers there"
    except OSError as error:  # also a host that has no name yet
      reason = error.strerror or str(error) or type(error).__name__
    time.sleep(min(0.3, left))
  return (
    f"Process {me['process_id']} could not reach process 0 at {host}:{port} "
    f"within {seconds:.0f} seconds ({reason}). Start all processes at the same "
    "time, check --coordinator and the firewall; --join_timeout waits for "
    "longer."
  )


def _parse(line: bytes) -> dict[str, Any]:
  found = json.loads(line)
  if not isinstance(found, dict) or found.get("purpose") != _PURPOSE:
    raise ValueError("not a message of the roll call")
  return found


def _cannot_listen(port: int, error: OSError) -> str:
  remedy = (
    "Name a free one by --coordinator or, where JAX chooses it, by the "
    "environment variable JAX_COORDINATOR_PORT."
  )
  if error.errno == errno.EADDRINUSE:
    return (
      f"Port {port}, at which the processes would meet, is in use on this "
      f"host, perhaps by another run. {remedy}"
    )
  return (
    f"Process 0 cannot listen at port {port}, at which the processes would "
    f"meet ({error.strerror}). {remedy}"
  )
