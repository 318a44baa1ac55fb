"""What is timed of a model: prediction, the training step, the cached step.

None of them reads a file; the images are noise, and so are the features of the
cached step, which is given what the encoder computes (`config.cache=features`).
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from ml_collections import ConfigDict

from inp_former_jax import experiment, sharding
from inp_former_jax.benchmarks import compiling, floor
from inp_former_jax.benchmarks.compiling import Program
from inp_former_jax.inference.trained import TrainedModel
from inp_former_jax.models import complexity
from inp_former_jax.training.model_state import DTYPES
from inp_former_jax.training.state_layout import lay_out
from inp_former_jax.training.train_step import (
  State,
  encodes_apart,
  jit_encode,
  jit_train_step,
)

PREDICT, STEP, CACHED = "predict", "step", "cached"
WORKS = (PREDICT, STEP, CACHED)
_STEPS = 1000  # of the schedule, which has no influence on the speed


@dataclasses.dataclass(frozen=True)
class Work:
  """A kind of work with one model and one size of images and batch, compiled.

  Attributes:
    name: One of WORKS.
    model: The model.
    batch_size: Number of images in the global batch.
    crop: Height and width of the images in pixels.
    program: The compiled function.
    call: Function that does the work once and waits for it.
    flops: Floating-point operations of one image.
    floor_bytes: Bytes that a device must read and write, see `floor`.
  """

  name: str
  model: TrainedModel
  batch_size: int
  crop: tuple[int, int]
  program: Program
  call: Callable[[], object]
  flops: int
  floor_bytes: int


@dataclasses.dataclass(frozen=True)
class Recipe:
  """How a model is trained, as a run does it.

  Attributes:
    abstract: Shapes, dtypes and shardings of the training state.
    initialise: Jitted function from the trainable part to a training state that
      shares no memory with it.
    step: The jitted training step, whose state is donated.
  """

  abstract: State
  initialise: Callable[[nnx.State], State]
  step: Callable[..., Any]


def recipe(
  config: ConfigDict,
  graphdef: nnx.GraphDef,
  trainable: nnx.State,
  mesh: jax.sharding.Mesh,
) -> Recipe:
  """Puts optimizer and step together; nothing is compiled yet.

  Args:
    config: The config of a run; loss and optimizer are read.
    graphdef: Structure of the model.
    trainable: Its trainable part, which may be abstract.
    mesh: The devices, which need not be there.
  """
  optimizer = experiment.make_optimizer(
    config, experiment.make_schedule(config, _STEPS)
  )

  def initialise(trainable: nnx.State) -> State:
    copy = jax.tree.map(lambda x: x + 0, trainable)
    return copy, optimizer.init(copy)

  layout = lay_out(optimizer, trainable, mesh)
  return Recipe(
    abstract=layout.abstract,
    initialise=jax.jit(initialise, out_shardings=layout.shardings),
    step=jit_train_step(
      graphdef, optimizer, mesh, layout.shardings, **config.loss
    ),
  )


class Trainer:
  """The training state of a model, which all works that train it share.

  Attributes:
    step: The jitted training step, as a run compiles it.
  """

  def __init__(self, config: ConfigDict, model: TrainedModel):
    """Makes the step; the state is made when it is first needed.

    Args:
      config: The config of a run; loss and optimizer are read.
      model: The model, whose parameters are copied.
    """
    self._model = model
    self._recipe = recipe(config, model.graphdef, model.trainable, model.mesh)
    self.step = self._recipe.step
    self._state: State | None = None

  @property
  def state(self) -> State:
    """The state after the steps so far."""
    if self._state is None:
      self._state = self._recipe.initialise(self._model.trainable)
    return self._state

  def advance(self, run: Callable[..., Any], *arguments: Any) -> None:
    """Takes a step and waits for it.

    Args:
      run: The compiled step.
      *arguments: Its arguments besides the state, which it consumes.
    """
    state, self._state = self.state, None
    self._state, metrics = run(state, *arguments)
    jax.block_until_ready((self._state, metrics))


def build(
  config: ConfigDict,
  name: str,
  model: TrainedModel,
  trainer: Trainer,
  batch_size: int,
  crop: tuple[int, int],
) -> Work:
  """Compiles a kind of work, without a cache.

  Args:
    config: The config of a run.
    name: The kind of work, one of WORKS.
    model: The model.
    trainer: The training state of the model.
    batch_size: Number of images in the global batch.
    crop: Height and width of the images in pixels.

  Returns:
    The work, which has not been done yet.
  """
  inputs = _inputs(name, model, batch_size, crop)
  counts = _counts(model, crop)
  if name == PREDICT:
    arguments = (model.trainable, model.frozen, inputs)
    program = compiling.compile_anew(model.predict_step, *arguments)
    outputs = jax.eval_shape(model.predict_step, *arguments)
    written = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(outputs))
    read = floor.bytes_on_device(arguments)
    moved = read + written // model.mesh.size
    call = _predicting(program, arguments)
    flops = counts.predict_flops
  else:
    apart = encodes_apart(model.mesh)
    given = (inputs,) if name == STEP else (None, None, inputs)
    arguments = (model.frozen, *given)
    if name == STEP and apart:
      program = _encode_and_step(config, model, trainer.state, inputs)
    else:
      program = compiling.compile_anew(trainer.step, trainer.state, *arguments)
    moved = 2 * floor.bytes_on_device(trainer.state)
    moved += floor.bytes_on_device(arguments if name == STEP else inputs)
    call = _training(trainer, program, arguments)
    flops = counts.step_flops if name == STEP else counts.cached_step_flops
  return Work(
    name, model, batch_size, crop, program, call, flops, floor_bytes=moved
  )


def _encode_and_step(
  config: ConfigDict, model: TrainedModel, state: State, images: jax.Array
) -> Program:
  """Compiles the step in two programs, as `ImageInputs` has them."""
  # Not the trainer's step: JAX would remember it, and the cached step, which is
  # the same program, would seem to be compiled in no time.
  step = recipe(config, model.graphdef, model.trainable, model.mesh).step
  encode = jit_encode(model.graphdef, model.trainable, model.mesh)
  groups = jax.ShapeDtypeStruct(
    jax.eval_shape(encode, model.frozen, images).shape,
    jnp.float32,
    sharding=sharding.batch_sharding(model.mesh),
  )
  first = compiling.compile_anew(encode, model.frozen, images)
  second = compiling.compile_anew(step, state, model.frozen, None, None, groups)

  def run(state: State, frozen: nnx.State, images: jax.Array) -> Any:
    groups = first.run(frozen, images)
    return second.run(state, frozen, None, None, groups)

  return compiling.in_turn(first, second, run)


def _predicting(program: Program, arguments: Any) -> Callable[[], object]:
  return lambda: jax.block_until_ready(program.run(*arguments))


def _training(
  trainer: Trainer, program: Program, arguments: Any
) -> Callable[[], object]:
  return lambda: trainer.advance(program.run, *arguments)


def _inputs(
  name: str, model: TrainedModel, batch_size: int, crop: tuple[int, int]
) -> jax.Array:
  """Returns noise: images, or for the cached step the encoder's groups."""
  sharding.check_batch_size(model.mesh, batch_size)
  rows = batch_size // jax.process_count()
  random = np.random.default_rng(0)
  if name == CACHED:
    variant = model.settings.spec.variant
    patches = (crop[0] // variant.patch_size) * (crop[1] // variant.patch_size)
    shape = (rows, 2, patches, variant.width)
    noise = random.standard_normal(shape, np.float32)
    noise = noise.astype(DTYPES[model.settings.dtype])
  else:
    noise = random.integers(0, 256, (rows, *crop, 3), np.uint8)
  return sharding.to_global(noise, sharding.batch_sharding(model.mesh))


def _counts(
  model: TrainedModel, crop: tuple[int, int]
) -> complexity.Complexity:
  settings = model.settings
  return complexity.count(
    settings.spec.variant,
    settings.spec.num_registers,
    *crop,
    num_prototypes=settings.num_prototypes,
    use_inps=settings.use_inps,
  )
