"""The main command: trains a model, resumes a run, or evaluates a checkpoint.

python -m inp_former_jax.main --config=demo --workdir=workdir/demo
python -m inp_former_jax.main --mode=eval --workdir=workdir/demo

The first command trains a model and evaluates it; started again, it resumes the
run. The second one evaluates the newest checkpoint of the workdir (the best one
with --config.checkpoint.use=best), with the config that the run recorded there.

SIGTERM and SIGINT (Ctrl-C) save a checkpoint at the next step, on all
processes, and exit with 143 and 130; a second signal ends at once. The same
command resumes. Errors exit with 1.
"""

import functools

import jax
import jaxlib
from absl import app, flags

import inp_former_jax
from inp_former_jax import command_line, compilation_cache, freed_memory
from inp_former_jax.processes import agreement, joining
from inp_former_jax.processes.preemption import Preemption

_CONFIG, _WORKDIR = command_line.define_flags(
  "Folder for checkpoints, logs and results, e.g. --workdir=workdir/parts. A "
  "run that was stopped is resumed from it."
)
flags.adopt_module_key_flags(command_line)
_MODE = flags.DEFINE_enum(
  "mode",
  "train",
  ["train", "eval"],
  "train: train or resume, then evaluate. eval: evaluate a checkpoint "
  "of the workdir, the newest unless config.checkpoint.use is best.",
)
_DISTRIBUTED = flags.DEFINE_bool(
  "distributed",
  False,
  "This is one of several processes: one per host on TPUs, one per GPU or host "
  "on GPUs. On TPU pods and under Slurm JAX finds the others; elsewhere give "
  "the next three flags too.",
)
_COORDINATOR = flags.DEFINE_string(
  "coordinator", None, "HOST:PORT of the first process."
)
_NUM_PROCESSES = flags.DEFINE_integer(
  "num_processes", None, "Number of processes."
)
_PROCESS_ID = flags.DEFINE_integer(
  "process_id", None, "Number of this process, from 0."
)
_JOIN_TIMEOUT = flags.DEFINE_integer(
  "join_timeout",
  joining.JOIN_TIMEOUT,
  "Seconds to wait for the other processes at the start.",
)


def main(argv: list[str]) -> None:
  """Calls the job that the flags ask for.

  Args:
    argv: The arguments that are not flags; expected to be the program alone.
  """
  command_line.start(argv)
  given = (_COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value)
  if not _DISTRIBUTED.value and any(value is not None for value in given):
    raise app.UsageError(
      "--coordinator, --num_processes and --process_id need --distributed."
    )
  with Preemption() as preemption:
    # Importing takes some seconds, in which the command must not seem to hang.
    print("Loading Flax, Orbax and the data libraries ...", flush=True)
    compilation_cache.enable()
    freed_memory.keep()
    if _DISTRIBUTED.value:
      command_line.call(_join, preemption, *given)
    # Imported late: the first use of a device must come after the line above.
    from inp_former_jax import protocols

    modes = {
      "train": functools.partial(
        protocols.train_and_evaluate, preemption=preemption
      ),
      "eval": protocols.evaluate_checkpoint,
    }
    command_line.call(modes[_MODE.value], _CONFIG.value, _WORKDIR.value)


def _join(preemption: Preemption, *given) -> None:
  """Joins the other processes, which must have been started alike."""
  versions = {
    "inp_former_jax": inp_former_jax.__version__,
    "jax": jax.__version__,
    "jaxlib": jaxlib.__version__,
  }
  joining.join(*given, versions=versions, seconds=_JOIN_TIMEOUT.value)
  preemption.joined()
  agreement.require_same({"--mode": _MODE.value} | versions)


def run() -> None:
  """Parses the flags and calls `main`."""
  command_line.run(main)


if __name__ == "__main__":
  run()
