"""Which processes count as dead."""

from inp_former_jax.processes.ending import PATIENCE
from inp_former_jax.processes.joining import HEARTBEAT_TIMEOUT
from inp_former_jax.processes.liveness import EVERY, SILENCE, Watch


def test_a_process_whose_sign_no_longer_changes_is_silent():
  watch = Watch(range(1, 4), 100.0)
  signs = {"1": "0", "2": "0", "3": "0"}
  assert watch.silent(signs, 101.0) == []
  signs |= {"1": "1", "3": "1"}
  assert watch.silent(signs, 101.0 + SILENCE) == []
  signs |= {"1": "2"}
  assert watch.silent(signs, 102.0 + SILENCE) == [2]
  signs |= {"1": "3", "2": "1"}  # it was only busy
  assert watch.silent(signs, 102.0 + 2 * SILENCE) == [3]


def test_a_process_that_never_gives_a_sign_is_silent():
  watch = Watch(range(1), 0.0)
  assert watch.silent({}, SILENCE) == []
  assert watch.silent({}, SILENCE + 1) == [0]


def test_silence_ends_the_others_before_jax_aborts_them():
  # JAX may begin to count half of its time before the last sign of life.
  assert SILENCE + 2 * EVERY + PATIENCE < HEARTBEAT_TIMEOUT / 2
