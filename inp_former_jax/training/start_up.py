"""Measures the time to the first step, and how much of it is compiling."""

import contextlib
import dataclasses
import functools
import time
from collections.abc import Generator

import jax

from inp_former_jax.training.progress import announce

# The work of XLA, or what it takes to load the result of an earlier one.
_COMPILING = "/jax/core/compile/backend_compile_duration"
_LOADED = "/jax/compilation_cache/cache_hits"
_ADDED = "/jax/compilation_cache/cache_misses"


@dataclasses.dataclass
class _Totals:
  """Programs loaded from the cache and added to it; seconds of compiling."""

  loaded: int = 0
  added: int = 0
  compiling: float = 0.0

  def since(self, before: "_Totals") -> "_Totals":
    return _Totals(
      self.loaded - before.loaded,
      self.added - before.added,
      self.compiling - before.compiling,
    )

  def plus(self, other: "_Totals") -> "_Totals":
    return _Totals(
      self.loaded + other.loaded,
      self.added + other.added,
      self.compiling + other.compiling,
    )


class StartUp:
  """The time from now until the first step is done.

  Attributes:
    line: What has been announced; empty before the first step.
  """

  def __init__(self):
    """Starts the clock."""
    self.line = ""
    self._totals = _totals()
    self._before = dataclasses.replace(self._totals)
    self._began = time.perf_counter()

  @contextlib.contextmanager
  def excluding(self) -> Generator[None]:
    """Stops the clock for work that one start does and the next need not."""
    totals = dataclasses.replace(self._totals)
    began = time.perf_counter()
    yield
    self._began += time.perf_counter() - began
    self._before = self._before.plus(self._totals.since(totals))

  def first_step(self, metrics: object) -> None:
    """Waits for the first step, and announces how long it took to get there.

    Args:
      metrics: The metrics of a step; only those of the first are waited for.
    """
    if self.line:
      return
    jax.block_until_ready(metrics)
    seconds = time.perf_counter() - self._began
    self.line = _describe(seconds, self._totals.since(self._before))
    announce(self.line)


def _describe(seconds: float, spent: _Totals) -> str:
  # JAX adds its settings as attributes while it is imported.
  if not getattr(jax.config, "jax_compilation_cache_dir", None):
    cache = "no compilation cache"
  else:
    cache = (
      f"compilation cache: {spent.loaded} programs loaded, {spent.added} added"
    )
  return (
    f"The first step was done after {seconds:.1f} s; {spent.compiling:.1f} s "
    f"of them went into compiling ({cache})."
  )


@functools.cache
def _totals() -> _Totals:
  """Returns totals over the whole process, which JAX adds to from now on."""
  totals = _Totals()

  def add_event(event: str, **_: str | int) -> None:
    if event == _LOADED:
      totals.loaded += 1
    elif event == _ADDED:
      totals.added += 1

  def add_seconds(event: str, duration_secs: float, **_: str | int) -> None:
    if event == _COMPILING:
      totals.compiling += duration_secs

  jax.monitoring.register_event_listener(add_event)
  jax.monitoring.register_event_duration_secs_listener(add_seconds)
  return totals
