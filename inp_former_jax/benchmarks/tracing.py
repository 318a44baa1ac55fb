"""Writes a trace of some batches, to be read in Perfetto or TensorBoard."""

import pathlib
from collections.abc import Sequence

import jax

from inp_former_jax.benchmarks.steps import Work

# The parts of the model, of which the program's operations bear the names.
SCOPES = ("encoder", "extractor", "bottleneck", "decoder", "loss", "optimizer")
_CALLS = 3  # of each kind of work


def write(folder: pathlib.Path, works: Sequence[Work]) -> None:
  """Does every kind of work three times while JAX's profiler watches.

  Args:
    folder: Folder of the trace.
    works: The works, which have been done before. In the trace each call is a
      step with the work's name.
  """
  with jax.profiler.trace(str(folder)):
    for work in works:
      for number in range(_CALLS):
        with jax.profiler.StepTraceAnnotation(work.name, step_num=number):
          work.call()
