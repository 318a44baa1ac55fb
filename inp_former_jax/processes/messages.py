"""Short messages between the processes, by the key-value store of JAX.

They need no device and no collective, so they work between processes that
disagree, and while one of them is busy or blocked. Without
`jax.distributed.initialize` there is a single process, and no
messages are sent.
"""

# The store has no public name; orbax takes it from here, too.
from jax._src import distributed


def several() -> bool:
  """Whether this process is one of several."""
  return distributed.global_state.client is not None and count() > 1


def count() -> int:
  """Returns the number of processes, without starting a device."""
  return distributed.global_state.num_processes


def index() -> int:
  """Returns the number of this process, without starting a device."""
  return distributed.global_state.process_id


def has_preemption_notices() -> bool:
  """Whether JAX listens for preemption notices."""
  return distributed.global_state.preemption_sync_manager is not None


def put(key: str, value: str) -> bool:
  """Writes a message that all processes can read.

  Args:
    key: Name of the message.
    value: The message.

  Returns:
    Whether it was written; False if there is one of this name already.

  Raises:
    RuntimeError: If the service of messages cannot be reached.
  """
  try:
    _client().key_value_set(key, value)
  except RuntimeError as error:
    if "ALREADY_EXISTS" in str(error):
      return False
    raise
  return True


def put_newest(key: str, value: str) -> None:
  """Writes a message in place of the one of this name, if there is one.

  Args:
    key: Name of the message.
    value: The message.

  Raises:
    RuntimeError: If the service of messages cannot be reached.
  """
  _client().key_value_set(key, value, allow_overwrite=True)


def get(key: str, seconds: float) -> str | None:
  """Waits for a message.

  Args:
    key: Name of the message.
    seconds: How long to wait for it.

  Returns:
    The message; None if it has not come.

  Raises:
    RuntimeError: If the service of messages cannot be reached.
  """
  try:
    return _client().blocking_key_value_get(key, max(1, int(seconds * 1000)))
  except RuntimeError as error:
    if "DEADLINE_EXCEEDED" in str(error):
      return None
    raise


def under(folder: str) -> dict[str, str]:
  """Returns the messages named `folder`/..., by what follows."""
  found = _client().key_value_dir_get(folder)
  return {key.removeprefix(f"{folder}/"): value for key, value in found}


def wait_for_all(name: str, seconds: float) -> None:
  """Waits until all processes have called this function.

  Args:
    name: Name of the meeting; each name can be used once.
    seconds: How long to wait.

  Raises:
    RuntimeError: If a process has not come, or has ended.
  """
  _client().wait_at_barrier(name, int(seconds * 1000))


def _client():
  client = distributed.global_state.client
  assert client is not None, "jax.distributed is not initialised"
  return client
