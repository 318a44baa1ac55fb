"""Chooses a checkpoint whose files are undamaged, and reports others."""

import json
from collections.abc import Sequence

import jax

from inp_former_jax.processes import exchange
from inp_former_jax.training.checkpoints import manifest, place
from inp_former_jax.training.checkpoints.place import Place
from inp_former_jax.training.identity import CheckpointError
from inp_former_jax.training.progress import warn

ASIDE = "damaged_checkpoints"  # in the workdir
_reported: set[str] = set()  # each line is printed once per process


def choose(directory: Place, steps: Sequence[int]) -> int:
  """Returns the first step whose checkpoint is sound, and warns of the others.

  All processes must call it; the first one reads the files for all.

  Args:
    directory: Folder of the checkpoints.
    steps: Steps of complete checkpoints in the order of preference; at least
      one.

  Raises:
    CheckpointError: If every checkpoint is damaged. The message names a damaged
      file of the first one.
  """
  damage = []
  if jax.process_index() == 0:
    damage = _damage_of_first(directory, steps)
  # The steps too: on a network drive, others may still see what was moved.
  text = exchange.from_first_process(json.dumps([damage, list(steps)]))
  damage, steps = json.loads(text)
  if len(damage) == len(steps):
    others = "" if len(steps) == 1 else ", and so are all others"
    raise CheckpointError(
      f"The checkpoint of step {steps[0]} is damaged{others}: {damage[0]}. "
      "Restore it from a backup, or start again in another workdir."
    )
  step = steps[len(damage)]
  for bad, finding in zip(steps, damage, strict=False):
    _report(
      f"Warning: the checkpoint of step {bad} is damaged: {finding}. The one "
      f"of step {step} is used instead."
    )
  folder = directory / str(step)
  if not manifest.has_manifest(folder):
    _report(
      f"Note: {folder} has no checksums ({manifest.NAME}), because an earlier "
      "version saved it; damage to it would not be found."
    )
  return step


def _damage_of_first(directory: Place, steps: Sequence[int]) -> list[str]:
  """Returns what is wrong with each step before the first sound one."""
  found = []
  for step in steps:
    damage = manifest.find_damage(directory / str(step))
    if not damage:
      break
    found.append(damage)
  return found


def move_aside(directory: Place, steps: Sequence[int]) -> None:
  """Moves damaged checkpoints out of the way of those that will be saved.

  Args:
    directory: Folder of the checkpoints. The others go to a folder beside it,
      for they may still hold something of use.
    steps: Steps of the damaged checkpoints.
  """
  if jax.process_index() == 0:
    for step in steps:
      target = _unused(_aside(directory) / str(step))
      place.move(directory / str(step), target)
      warn(f"Moved the damaged checkpoint of step {step} to {target}.")
  exchange.from_first_process("moved")  # all wait until they are moved


def _aside(directory: Place) -> Place:
  if place.in_bucket(directory):  # beside it are other runs
    return directory.with_name(f"{directory.name}_damaged")
  return directory.parent / ASIDE


def _unused(path: Place) -> Place:
  number, target = 1, path
  while target.exists():
    number += 1
    target = path.with_name(f"{path.name}_{number}")
  return target


def _report(line: str) -> None:
  if line not in _reported:
    _reported.add(line)
    warn(line)
