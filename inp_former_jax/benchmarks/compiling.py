"""Compiles a function without a cache, and tells what the compiler knows."""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Generator
from typing import Any

import jax
from jax.experimental.compilation_cache import compilation_cache


@dataclasses.dataclass(frozen=True)
class Program:
  """A compiled function.

  Attributes:
    run: The function itself, for arguments of the shapes it was compiled for.
    text: The compiled program as text.
    compile_seconds: Seconds to trace, lower and compile it.
    temporary_bytes: Memory that it takes while it runs, besides arguments and
      outputs, for each device; None where the compiler does not tell.
    argument_bytes: Memory of its arguments, likewise.
    output_bytes: Memory of its outputs, likewise.
    alias_bytes: Memory of outputs that take the place of donated arguments.
    flops: Floating-point operations by the compiler's count. The body of a loop
      counts once, a call of cuDNN not at all, and our Pallas kernel by the
      estimate that it carries.
    bytes_accessed: Bytes that its operations read and write by the compiler's
      count, most of which a CPU finds in its caches.
  """

  run: Callable[..., Any]
  text: str = dataclasses.field(repr=False)
  compile_seconds: float
  temporary_bytes: int | None
  argument_bytes: int | None
  output_bytes: int | None
  alias_bytes: int | None
  flops: float | None
  bytes_accessed: float | None


def compile_anew(function: Any, *arguments: Any, **named: Any) -> Program:
  """Compiles a jitted function, whatever a cache holds.

  Args:
    function: What `jax.jit` returned.
    *arguments: Arguments of the function, which is not called.
    **named: Further arguments by name.

  Returns:
    The compiled function.
  """
  with without_cache():
    start = time.perf_counter()
    compiled = function.lower(*arguments, **named).compile()
    seconds = time.perf_counter() - start
  memory = compiled.memory_analysis()
  cost = compiled.cost_analysis() or {}
  return Program(
    run=compiled,
    text=compiled.as_text() or "",
    compile_seconds=seconds,
    temporary_bytes=getattr(memory, "temp_size_in_bytes", None),
    argument_bytes=getattr(memory, "argument_size_in_bytes", None),
    output_bytes=getattr(memory, "output_size_in_bytes", None),
    alias_bytes=getattr(memory, "alias_size_in_bytes", None),
    flops=cost.get("flops"),
    bytes_accessed=cost.get("bytes accessed"),
  )


def in_turn(
  first: Program, second: Program, run: Callable[..., Any]
) -> Program:
  """Describes two programs of which the second takes what the first returns.

  Args:
    first: The first program.
    second: The second one. It keeps nothing of the first but its outputs.
    run: Function that calls both.

  Returns:
    Both as one program.
  """

  def combine(function: Callable[..., Any], name: str) -> Any:
    values = [getattr(program, name) for program in (first, second)]
    return None if None in values else function(values)

  between = first.output_bytes or 0
  return Program(
    run=run,
    text=first.text + second.text,
    compile_seconds=first.compile_seconds + second.compile_seconds,
    temporary_bytes=combine(lambda x: max(x) + between, "temporary_bytes"),
    argument_bytes=combine(lambda x: sum(x) - between, "argument_bytes"),
    output_bytes=second.output_bytes,
    alias_bytes=second.alias_bytes,
    flops=combine(sum, "flops"),
    bytes_accessed=combine(sum, "bytes_accessed"),
  )


@contextlib.contextmanager
def without_cache() -> Generator[None]:
  """Switches JAX's persistent compilation cache off while it is entered.

  Yields:
    Nothing.
  """
  name = "jax_enable_compilation_cache"
  before = jax.config.values[name]
  jax.config.update(name, False)
  compilation_cache.reset_cache()  # JAX decides only once whether to use it
  try:
    yield
  finally:
    jax.config.update(name, before)
    compilation_cache.reset_cache()
