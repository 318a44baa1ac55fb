"""Makes sure that all processes are about to run the same work.

Processes that disagree wait for each other in collectives that never end, so
what they are about to do is compared before the first one.
"""

import itertools
import json
from collections.abc import Mapping
from typing import Any

from inp_former_jax.processes import messages
from inp_former_jax.terminal import shortened

# One process may still read its data while another is ready.
_PATIENCE = 1800.0
_SHOWN = 10
_comparisons = itertools.count()


class DisagreementError(ValueError):
  """Raised if the processes of a run differ in what must be the same."""


def require_same(facts: Mapping[str, Any]) -> None:
  """Compares facts with those of the other processes.

  All processes must call this function equally often, in the same order. With
  one process it does nothing.

  Args:
    facts: What must be the same everywhere, by name; fit for JSON.

  Raises:
    DisagreementError: If the facts of this process differ from those of the
      first. The message names what differs, and both values.
    RuntimeError: If another process does not come, for half an hour, or ends.
  """
  if not messages.several():
    return
  name = f"inp_former_jax/agreement/{next(_comparisons)}"
  mine = json.loads(json.dumps(facts, default=str))
  if messages.index() == 0:
    messages.put(name, json.dumps(mine))
  else:
    text = messages.get(name, _PATIENCE)
    if text is None:
      raise RuntimeError(
        f"Process 0 did not reach this check within {_PATIENCE / 60:.0f} "
        f"minutes of process {messages.index()}. See what process 0 has "
        "printed."
      )
    _require_equal(json.loads(text), mine)
  messages.wait_for_all(f"{name}/same", _PATIENCE)


def differences(
  theirs: Mapping[str, Any], mine: Mapping[str, Any]
) -> list[str]:
  """Describes what differs between two processes.

  Args:
    theirs: The facts of the first process.
    mine: The facts of this process.

  Returns:
    A phrase for each fact that differs, or that only one of them has.
  """
  absent = "absent"
  return [
    f"{name} is {theirs.get(name, absent)!r} there, "
    f"{mine.get(name, absent)!r} here"
    for name in sorted(theirs.keys() | mine.keys())
    if theirs.get(name, absent) != mine.get(name, absent)
  ]


def _require_equal(theirs: Mapping[str, Any], mine: Mapping[str, Any]) -> None:
  found = differences(theirs, mine)
  if not found:
    return
  raise DisagreementError(
    f"Process {messages.index()} disagrees with process 0: "
    f"{shortened(found, _SHOWN, '; ')}. Start all processes with the same "
    "code, config and data."
  )
