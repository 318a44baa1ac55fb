"""Processes that do not come, or do not fit, are named in time."""

import concurrent.futures
import socket
import time

import pytest

from inp_former_jax.processes import joining, roll_call
from inp_former_jax.processes.roll_call import RollCallError

VERSIONS = {"jax": "1.0"}


@pytest.fixture
def port():
  with socket.socket() as free:
    free.bind(("", 0))
    return free.getsockname()[1]


def hold(port, process_id, count=2, versions=VERSIONS, seconds=20.0):
  return roll_call.hold(
    "127.0.0.1",
    port,
    num_processes=count,
    process_id=process_id,
    versions=versions,
    seconds=seconds,
  )


def errors_of(*calls) -> list[str]:
  """Holds a roll call in threads; returns what each hears, "" if nothing."""
  with concurrent.futures.ThreadPoolExecutor(len(calls)) as pool:
    found = [pool.submit(hold, **call) for call in calls]
    errors = [future.exception() for future in found]
  assert all(e is None or isinstance(e, RollCallError) for e in errors), errors
  return [str(error or "") for error in errors]


def test_all_come_and_the_port_is_free_again(port):
  calls = [{"port": port, "process_id": i, "count": 4} for i in range(4)]
  for _ in range(2):  # the second time needs the port again
    assert errors_of(*calls) == [""] * 4


def test_a_health_check_does_not_count(port):
  with concurrent.futures.ThreadPoolExecutor(2) as pool:
    first = pool.submit(hold, port, 0)
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
      try:
        with socket.create_connection(("127.0.0.1", port)) as connection:
          connection.sendall(b"GET / HTTP/1.1\r\n")
        break
      except OSError:
        time.sleep(0.01)
    second = pool.submit(hold, port, 1)
    assert first.result() is None and second.result() is None


def test_who_is_missing_is_named_to_all(port):
  errors = errors_of(
    {"port": port, "process_id": 0, "count": 3, "seconds": 1.5},
    {"port": port, "process_id": 2, "count": 3, "seconds": 1.5},
  )
  for error in errors:
    assert "1 of 3 processes did not come within 2 seconds" in error
    assert "--process_id=1." in error


def test_an_absent_first_process_is_named_with_its_address(port):
  with pytest.raises(
    RollCallError, match=rf"Process 1 could not reach .*127.0.0.1:{port} within"
  ):
    hold(port, 1, seconds=0.5)


def test_another_server_at_the_port_is_recognised():
  with socket.create_server(("127.0.0.1", 0)) as server:
    port = server.getsockname()[1]

    def answer():
      connection, _ = server.accept()
      with connection:
        connection.recv(4096)
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\n")

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
      pool.submit(answer)
      with pytest.raises(RollCallError, match="something other than process 0"):
        hold(port, 1, seconds=0.2)


def test_a_used_port_is_refused(monkeypatch):
  monkeypatch.setattr(roll_call, "PORT_PATIENCE", 0.5)
  with socket.create_server(("", 0)) as server:
    port = server.getsockname()[1]
    with pytest.raises(RollCallError, match=f"Port {port}.* is in use"):
      hold(port, 0)


def test_a_port_that_another_run_still_leaves_is_waited_for():
  server = socket.create_server(("", 0))
  port = server.getsockname()[1]
  with concurrent.futures.ThreadPoolExecutor(2) as pool:
    calls = [pool.submit(hold, port, i) for i in range(2)]
    time.sleep(1.0)
    assert not calls[0].done()
    server.close()
    assert [call.result() for call in calls] == [None, None]


@pytest.mark.parametrize(
  "other, message",
  [
    ({"count": 3}, "--num_processes is 2 in process 0 and 3 in process 1"),
    (
      {"versions": {"jax": "2.0"}},
      "jax is 1.0 in process 0 and 2.0 in process 1",
    ),
  ],
)
def test_what_differs_is_said_to_both(port, other, message):
  errors = errors_of(
    {"port": port, "process_id": 0},
    {"port": port, "process_id": 1} | other,
  )
  assert all(message in error for error in errors), errors


def test_two_processes_of_one_number_are_told(port):
  errors = errors_of(
    *({"port": port, "process_id": i, "count": 3} for i in (0, 1, 1))
  )
  assert all("Two processes" in error for error in errors), errors


@pytest.mark.parametrize(
  "arguments, message",
  [
    (("h:1", 2, -1), "--process_id is -1; expected a whole number from 0 to 1"),
    (("h:1", 2, 2), "--process_id is 2; expected a whole number from 0 to 1"),
    ((None, None, -1), "--process_id is -1"),
    (("h:1", 0, 0), "--num_processes is 0; expected 1 or more"),
    (("h", 2, 0), "--coordinator is 'h'; expected HOST:PORT"),
    (("h:99999", 2, 0), "expected HOST:PORT"),
  ],
)
def test_numbers_that_cannot_be_are_refused(arguments, message):
  with pytest.raises(ValueError, match=message):
    joining.join(*arguments, versions=VERSIONS)


def test_a_time_that_cannot_be_is_refused():
  with pytest.raises(ValueError, match="--join_timeout is 0"):
    joining.join(versions=VERSIONS, seconds=0)
