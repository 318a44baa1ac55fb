"""Distils an encoder into a smaller one of the same family.

python -m weights_conversion.distill --config=configs/distill.py \
  --workdir=DIR --config.teacher.weights=FILE --config.views.folders="('DIR',)"

`inp_former_jax.distill` describes the files that the workdir gets.
A signal saves a checkpoint and ends the command, as in `inp_former_jax.main`;
the same command resumes, and so does --workdir=DIR alone.
"""

import functools

from absl import flags

from inp_former_jax import command_line, compilation_cache, freed_memory
from inp_former_jax.distill import distill
from inp_former_jax.processes.preemption import Preemption


def main(argv: list[str]) -> None:
  """Passes the flags to the job.

  Args:
    argv: The arguments that are not flags; expected to be the program alone.
  """
  command_line.start(argv)
  with Preemption() as preemption:
    compilation_cache.enable()
    freed_memory.keep()
    job = functools.partial(distill, preemption=preemption)
    command_line.call(job, _CONFIG.value, _WORKDIR.value)


if __name__ == "__main__":
  _CONFIG, _WORKDIR = command_line.define_flags(
    "Folder for targets, checkpoints and the student."
  )
  flags.adopt_module_key_flags(command_line)
  command_line.run(main, example="distill")
