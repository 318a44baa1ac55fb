"""Joins the processes of a run, or says in a line why they do not come."""

import os
from collections.abc import Mapping

import jax

# What JAX knows of clusters has no public name.
from jax._src import clusters

from inp_former_jax.processes import coordination, roll_call

JOIN_TIMEOUT = 45
# JAX aborts all others after this time without a sign of life, or half of it:
# later than `liveness` ends them.
HEARTBEAT_TIMEOUT = 100
# At the end the others wait for the first one, which writes the report.
_SHUTDOWN_TIMEOUT = 3600


def join(
  coordinator: str | None = None,
  num_processes: int | None = None,
  process_id: int | None = None,
  *,
  versions: Mapping[str, str],
  seconds: int = JOIN_TIMEOUT,
) -> None:
  """Joins the other processes, by `jax.distributed`.

  Args:
    coordinator: HOST:PORT of the first process. None leaves it to JAX, which
      knows TPU pods, Slurm, Kubernetes and Open MPI; so for the next two.
    num_processes: Number of processes.
    process_id: Number of this process, from 0.
    versions: What must be the same in all processes, by name.
    seconds: How long to wait for the others.

  Raises:
    ValueError: If a value cannot be right, or JAX cannot find what is missing.
    RollCallError: If the other processes do not come, or do not fit.
  """
  if seconds < 1:
    raise ValueError(
      f"--join_timeout is {seconds}; expected 1 or more seconds."
    )
  _check_numbers(num_processes, process_id)
  if coordinator is not None:
    _address(coordinator)
  address, count, number = _complete(
    coordinator, num_processes, process_id, seconds
  )
  if address is not None and count is not None and number is not None:
    host, port = _address(address)
    roll_call.hold(
      host,
      port,
      num_processes=count,
      process_id=number,
      versions=versions,
      seconds=seconds,
    )
  try:
    with coordination.apart():
      jax.distributed.initialize(
        coordinator,
        num_processes,
        process_id,
        initialization_timeout=seconds,
        heartbeat_timeout_seconds=HEARTBEAT_TIMEOUT,
        shutdown_timeout_seconds=_SHUTDOWN_TIMEOUT,
      )
  except ValueError as error:
    raise ValueError(
      f"--distributed could not find the other processes ({error}) Outside of "
      "TPU pods and Slurm give --coordinator=HOST:PORT, --num_processes=N and "
      "--process_id=I as well."
    ) from error


def _complete(
  coordinator: str | None,
  num_processes: int | None,
  process_id: int | None,
  seconds: int,
) -> tuple[str | None, int | None, int | None]:
  """Fills in what JAX finds by itself; None stays where it finds nothing."""
  coordinator = coordinator or os.environ.get("JAX_COORDINATOR_ADDRESS")
  found = coordinator, num_processes, process_id
  if None not in found:
    return found
  detect = clusters.ClusterEnv.auto_detect_unset_distributed_params
  return detect(*found, None, None, seconds)[:3]


def _check_numbers(num_processes: int | None, process_id: int | None) -> None:
  if num_processes is not None and num_processes < 1:
    raise ValueError(f"--num_processes is {num_processes}; expected 1 or more.")
  if process_id is None:
    return
  if process_id < 0 or (
    num_processes is not None and process_id >= num_processes
  ):
    most = "" if num_processes is None else f" to {num_processes - 1}"
    raise ValueError(
      f"--process_id is {process_id}; expected a whole number from 0{most}, "
      "another one for each process."
    )


def _address(coordinator: str) -> tuple[str, int]:
  host, _, port = coordinator.rpartition(":")
  if not host or not port.isdecimal() or not 0 < int(port[:6]) < 2**16:
    raise ValueError(
      f"--coordinator is {coordinator!r}; expected HOST:PORT, such as "
      "10.0.0.1:1234."
    )
  return host.strip("[]"), int(port)
