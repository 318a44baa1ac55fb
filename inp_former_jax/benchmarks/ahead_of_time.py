"""Compiles prediction and training step for TPUs that are not there.

The compiler of libtpu needs no device. It tells what a program does and moves,
which is what bounds its speed, and how much memory it takes.
"""

import importlib.util
import os
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.experimental import topologies
from jax.sharding import AxisType, Mesh
from ml_collections import ConfigDict

from inp_former_jax import experiment, sharding
from inp_former_jax.benchmarks import compiling, steps
from inp_former_jax.benchmarks.compiling import Program
from inp_former_jax.field_names import naming_fields
from inp_former_jax.inference.predict_step import make_predict_step
from inp_former_jax.models import inp_former
from inp_former_jax.training.model_state import DTYPES, in_compute_dtype

_WORKS = (steps.PREDICT, steps.STEP)
_MIB = 2**20


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


def topology_mesh(topology: str, chips: int, fsdp: int) -> Mesh:
  """Makes a mesh of chips that need not be there.

  Args:
    topology: Kind and arrangement of the chips, such as "v5e:2x2".
    chips: Number of chips to use of it; 0 for all.
    fsdp: Number of chips over which parameters are split.

  Returns:
    The mesh, with the axes of every other mesh.

  Raises:
    ImportError: If libtpu is not installed.
    ValueError: If there is no such topology, or it has too few chips.
  """
  if importlib.util.find_spec("libtpu") is None:
    raise ImportError(
      "Compiling for TPUs needs libtpu. Install it into a folder of its own "
      "(pip install --target=FOLDER --no-deps libtpu) and set "
      "PYTHONPATH=FOLDER for this command alone: where JAX finds libtpu, every "
      "command looks for a TPU."
    )
  try:
    devices = topologies.get_topology_desc(topology, platform="tpu").devices
  except (RuntimeError, ValueError) as error:
    line = str(error).splitlines()[0]
    raise ValueError(f"`topology` is {topology!r}: {line}") from error
  chips = chips or len(devices)
  if not 0 < chips <= len(devices) or fsdp < 1 or chips % fsdp:
    raise ValueError(
      f"`chips` is {chips} and `fsdp` {fsdp}, but {topology} has "
      f"{len(devices)} chips, and `fsdp` must divide `chips`."
    )
  return Mesh(
    np.array(devices[:chips]).reshape(-1, fsdp),
    sharding.AXES,
    axis_types=(AxisType.Auto,) * 2,
  )


@naming_fields()
def compile_works(config: ConfigDict, mesh: Mesh) -> dict[str, Program]:
  """Compiles prediction and training step of a config for a mesh.

  Args:
    config: The config of a run.
    mesh: The devices, which need not be there.

  Returns:
    The programs by work, for each chip.

  Raises:
    ValueError: If the number of chips does not divide the batch, or a field of
      the config cannot be used.
  """
  sharding.check_batch_size(mesh, config.batch_size)
  settings = experiment.model_settings(config)
  patch_size = settings.spec.patch_size
  crop = experiment.preprocessing(config).require_patches(patch_size).crop
  graphdef, trainable, frozen = inp_former.split(nnx.eval_shape(settings.build))
  dtype = DTYPES[settings.dtype]
  frozen = jax.eval_shape(lambda f: in_compute_dtype(f, dtype), frozen)
  frozen = sharding.abstract(frozen, sharding.parameter_shardings(mesh, frozen))
  recipe = steps.recipe(config, graphdef, trainable, mesh)
  state = recipe.abstract
  images = jax.ShapeDtypeStruct(
    (config.batch_size, *crop, 3),
    jnp.uint8,
    sharding=sharding.batch_sharding(mesh),
  )
  predict = make_predict_step(
    graphdef, mesh, patch_size=patch_size, size=config.evaluation.size
  )
  return {
    steps.PREDICT: compiling.compile_anew(predict, state[0], frozen, images),
    steps.STEP: compiling.compile_anew(recipe.step, state, frozen, images),
  }


def format_table(
  programs: dict[str, Program], batch_size: int, chips: int
) -> str:
  """Formats what the compiler tells, for each image and each chip.

  Args:
    programs: The programs by work.
    batch_size: Number of images in the global batch.
    chips: Number of chips that share it.
  """
  heading = ("work", "GFLOP/image", "GB/image", "temporary", "arguments")
  rows: list[Sequence[str]] = [heading]
  images = batch_size / chips
  for work, program in programs.items():
    rows.append(
      (
        work,
        _cell(program.flops, images * 1e9, ".1f"),
        _cell(program.bytes_accessed, images * 1e9, ".2f"),
        _cell(program.temporary_bytes, _MIB, ",.0f", " MiB"),
        _cell(program.argument_bytes, _MIB, ",.0f", " MiB"),
      )
    )
  widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
  return "\n".join(
    "  ".join(
      cell.ljust(width) if i == 0 else cell.rjust(width)
      for i, (cell, width) in enumerate(zip(row, widths, strict=True))
    ).rstrip()
    for row in rows
  )


def _cell(value: float | None, unit: float, form: str, suffix: str = "") -> str:
  """Formats a figure, or a dash where the compiler does not tell it."""
  return "-" if value is None else f"{value / unit:{form}}{suffix}"
