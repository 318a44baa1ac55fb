"""Measures the time to the first step, and how much of it is compiling."""

import collections
import functools
import time

import jax

from inp_former_jax.training.progress import announce

# The work of XLA, or what it takes to load the result of an earlier one.
_COMPILING = "/jax/core/compile/backend_compile_duration"
_LOADED = "/jax/compilation_cache/cache_hits"
_KEPT = "/jax/compilation_cache/cache_misses"


class StartUp:
  """The time from now until the first step is done.

  Attributes:
    line: What has been announced; empty before the first step.
  """

  def __init__(self):
    """Starts the clock."""
    self.line = ""
    self._totals = _totals()
    self._before = self._totals.copy()
    self._began = time.perf_counter()

  def first_step(self, metrics: object) -> None:
    """Waits for the first step, and announces how long it took to get there.

    Args:
      metrics: The metrics of a step; only those of the first are waited for.
    """
    if self.line:
      return
    jax.block_until_ready(metrics)
    seconds = time.perf_counter() - self._began
    spent = collections.Counter(self._totals)
    spent.subtract(self._before)
    self.line = _describe(seconds, spent)
    announce(self.line)


def _describe(seconds: float, spent: collections.Counter) -> str:
  if not jax.config.jax_compilation_cache_dir:
    cache = "no compilation cache"
  else:
    cache = (
      f"compilation cache: {spent[_LOADED]} programs loaded, {spent[_KEPT]} "
      "added"
    )
  return (
    f"The first step was done after {seconds:.1f} s; {spent[_COMPILING]:.1f} s "
    f"of them went into compiling ({cache})."
  )


@functools.cache
def _totals() -> collections.Counter:
  """Returns totals over the whole process, which JAX adds to from now on."""
  totals: collections.Counter = collections.Counter()

  def add_event(name: str, **_) -> None:
    totals[name] += 1

  def add_seconds(name: str, seconds: float, **_) -> None:
    if name == _COMPILING:
      totals[name] += seconds

  jax.monitoring.register_event_listener(add_event)
  jax.monitoring.register_event_duration_secs_listener(add_seconds)
  return totals
