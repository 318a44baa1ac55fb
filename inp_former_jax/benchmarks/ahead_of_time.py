"""Compiles prediction and training step for TPUs that are not there.

The compiler of libtpu needs no device. It tells what a program does and moves,
which is what bounds its speed, and how much memory it takes.
"""

import dataclasses
import importlib.metadata
import importlib.util
import math
import os
import re
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.experimental import topologies
from jax.sharding import Mesh
from ml_collections import ConfigDict

from inp_former_jax import experiment, sharding
from inp_former_jax.benchmarks import collectives, compiling, steps
from inp_former_jax.benchmarks.collectives import Collective
from inp_former_jax.benchmarks.compiling import Program
from inp_former_jax.field_names import naming_fields
from inp_former_jax.inference.predict_step import make_predict_step
from inp_former_jax.models import complexity, inp_former
from inp_former_jax.training.model_state import DTYPES, in_compute_dtype

WORKS = (steps.PREDICT, steps.STEP)
FROZEN, TRAINABLE = "frozen parameters", "trainable parameters"
OPTIMIZER, IMAGES = "optimizer state", "images"
# XLA names the copy of an operation so; config.model.remat leaves no such name.
_RECOMPUTED = re.compile(r"%[\w.\-]+\.remat\d* = ")
_NO_LIBTPU = (
  "Compiling for TPUs needs libtpu. Install it into a folder of its own (pip "
  "install --target=FOLDER --no-deps libtpu) and set PYTHONPATH=FOLDER for "
  "this command alone: where JAX finds libtpu, every command looks for a TPU."
)


@dataclasses.dataclass(frozen=True)
class Compiled:
  """What the compiler tells of a kind of work, for each chip.

  Attributes:
    work: The kind of work, one of WORKS.
    parts: Bytes of its arguments, by what they are.
    flops: Floating-point operations of the matrix products of layers and
      attention, by their shapes.
    program: The program, or None if it takes more memory than a chip has.
    refusal: What the compiler said in this case.
    exchanges: The collectives of the program.
  """

  work: str
  parts: dict[str, int]
  flops: float
  program: Program | None
  refusal: str
  exchanges: list[Collective]

  @property
  def recomputed(self) -> int:
    """Number of operations that XLA does once more because memory is short."""
    if self.program is None:
      return 0
    return len(_RECOMPUTED.findall(self.program.text))

  @property
  def memory_bytes(self) -> int | None:
    """Bytes that it takes while it runs, or None if they are too many."""
    program = self.program
    if program is None or program.argument_bytes is None:
      return None
    new = (program.output_bytes or 0) - (program.alias_bytes or 0)
    return program.argument_bytes + new + (program.temporary_bytes or 0)


def use_cpu() -> None:
  """Keeps JAX from looking for a TPU, which would take minutes and a lock.

  To be called before anything else of JAX.
  """
  jax.config.update("jax_platforms", "cpu")
  # libtpu would ask the cloud what this machine is; the answer has no effect.
  os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
  os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
  os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-4")
  # No device is used, so that several may compile at once.
  os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")


def libtpu_version() -> str:
  """Returns the version of libtpu, or "" if it is not installed."""
  try:
    return importlib.metadata.version("libtpu")
  except importlib.metadata.PackageNotFoundError:
    return ""


@naming_fields()
def topology_mesh(
  topology: str, chips: int = 0, *, data: int = -1, fsdp: int = 1
) -> Mesh:
  """Makes a mesh of chips that need not be there, as training would make it.

  Args:
    topology: Kind and arrangement of the chips, such as "v5e:2x2".
    chips: Number of chips to use of it; 0 for all.
    data: Number of chips over which a batch is split; -1 for all the rest.
    fsdp: Number of chips over which parameters are split.

  Returns:
    The mesh, with the axes of every other mesh.

  Raises:
    ImportError: If libtpu is not installed.
    ValueError: If there is no such topology, it has too few chips, or the axes
      do not divide them.
  """
  if importlib.util.find_spec("libtpu") is None:
    raise ImportError(_NO_LIBTPU)
  try:
    devices = topologies.get_topology_desc(topology, platform="tpu").devices
  except (RuntimeError, ValueError) as error:
    line = str(error).splitlines()[0]
    raise ValueError(f"`topology` is {topology!r}: {line}") from error
  chips = chips or len(devices)
  if not 0 < chips <= len(devices):
    raise ValueError(
      f"`chips` is {chips}, but {topology} has {len(devices)} chips."
    )
  return sharding.make_mesh(data, fsdp, devices=devices[:chips])


@naming_fields()
def compile_work(config: ConfigDict, mesh: Mesh, work: str) -> Compiled:
  """Compiles prediction or training step of a config for a mesh.

  Neither data nor weights are read.

  Args:
    config: The config of a run.
    mesh: The devices, which need not be there.
    work: The kind of work, one of WORKS.

  Returns:
    What the compiler tells, for each chip.

  Raises:
    ValueError: If the number of chips does not divide the batch, or a field of
      the config cannot be used.
  """
  function, arguments = _function(config, mesh, work)
  state, frozen, images = arguments
  trainable, optimizer = state if work == steps.STEP else (state, ())
  parts = {
    FROZEN: _bytes_on_device(frozen),
    TRAINABLE: _bytes_on_device(trainable),
    OPTIMIZER: _bytes_on_device(optimizer),
    IMAGES: _bytes_on_device(images),
  }
  flops = _flops(config, work) * config.batch_size / mesh.size
  try:
    program = compiling.compile_anew(function, *arguments)
  except RuntimeError as error:
    if "RESOURCE_EXHAUSTED" not in str(error):
      raise
    return Compiled(work, parts, flops, None, _sentence(error), [])
  exchanges = collectives.read(program.text)
  return Compiled(work, parts, flops, program, "", exchanges)


def with_batch(config: ConfigDict, batch_size: int) -> ConfigDict:
  """Returns a config with another number of images in the global batch."""
  changed = config.copy_and_resolve_references()
  changed.batch_size = batch_size
  return changed


def _function(
  config: ConfigDict, mesh: Mesh, work: str
) -> tuple[Any, tuple[Any, ...]]:
  """Returns the jitted function of a kind of work, with abstract arguments."""
  sharding.check_batch_size(mesh, config.batch_size)
  settings = experiment.model_settings(config)
  crop = experiment.preprocessing(config).crop
  graphdef, trainable, frozen = inp_former.split(nnx.eval_shape(settings.build))
  dtype = DTYPES[settings.dtype]
  frozen = jax.eval_shape(lambda f: in_compute_dtype(f, dtype), frozen)
  frozen = sharding.abstract(frozen, sharding.parameter_shardings(mesh, frozen))
  recipe = steps.recipe(config, graphdef, trainable, mesh)
  images = jax.ShapeDtypeStruct(
    (config.batch_size, *crop, 3),
    jnp.uint8,
    sharding=sharding.batch_sharding(mesh),
  )
  if work == steps.STEP:
    return recipe.step, (recipe.abstract, frozen, images)
  predict = make_predict_step(
    graphdef,
    mesh,
    patch_size=settings.spec.patch_size,
    size=config.evaluation.size,
    top_fraction=config.evaluation.top_fraction,
  )
  return predict, (recipe.abstract[0], frozen, images)


def _flops(config: ConfigDict, work: str) -> int:
  """Counts the operations of an image from the shapes of its products."""
  settings = experiment.model_settings(config)
  counts = complexity.count(
    settings.spec.variant,
    settings.spec.num_registers,
    *experiment.preprocessing(config).crop,
    num_prototypes=settings.num_prototypes,
    use_inps=settings.use_inps,
  )
  return counts.step_flops if work == steps.STEP else counts.predict_flops


def _bytes_on_device(arrays: Any) -> int:
  """Returns the bytes that a device holds of abstract arrays."""
  return sum(
    math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
    for leaf in jax.tree.leaves(arrays)
  )


def _sentence(error: RuntimeError) -> str:
  """Returns what a compiler's message says, without its codes."""
  return re.sub(r"^(\w+: )+", "", str(error).splitlines()[0])
