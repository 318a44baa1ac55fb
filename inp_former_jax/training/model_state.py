"""Builds an INP-Former on a mesh, with the encoder's weights loaded."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh

from inp_former_jax import sharding
from inp_former_jax.models import inp_former
from inp_former_jax.models.attention import AUTO, check_implementation
from inp_former_jax.weights import pretrained
from inp_former_jax.weights.encoders import EncoderSpec, get_encoder

CONVERTED_ENCODER = "encoder.safetensors"  # beside a converted checkpoint
_TRAINABLE, _FROZEN = 0, 1  # order of the states from `inp_former.split`
DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


@dataclasses.dataclass(frozen=True)
class ModelSettings:
  """Settings that decide the structure of an INP-Former.

  Attributes:
    encoder: The encoder's name, a key of `encoders.ENCODERS`.
    num_prototypes: Number of INPs.
    use_inps: Whether the model has INPs; False gives the paper's ablation.
    dtype: Compute dtype, a key of DTYPES. The frozen encoder is held in it;
      all other parameters are float32.
    attention: How self-attention is computed, see `softmax_attention`; it
      changes only the speed.
    remat: Whether the gradient of bottleneck and decoder is computed from less
      that is kept, see `INPFormer`; it changes only memory and speed.
  """

  encoder: str
  num_prototypes: int = inp_former.NUM_PROTOTYPES
  use_inps: bool = True
  dtype: str = "float32"
  attention: str = AUTO
  remat: bool = False

  @property
  def spec(self) -> EncoderSpec:
    """The encoder's row of ENCODERS."""
    return get_encoder(self.encoder)

  def build(self, seed: int = 0) -> inp_former.INPFormer:
    """Builds the model with random weights throughout.

    Args:
      seed: Seed of the initial values.

    Returns:
      The model.

    Raises:
      ValueError: If the encoder, the dtype or the attention is unknown.
    """
    check_implementation(self.attention)
    if self.dtype not in DTYPES:
      raise ValueError(
        f"`dtype` is {self.dtype!r}; expected one of {', '.join(DTYPES)}."
      )
    return inp_former.INPFormer(
      self.spec.variant,
      self.spec.num_registers,
      num_prototypes=self.num_prototypes,
      use_inps=self.use_inps,
      attention=self.attention,
      dtype=DTYPES[self.dtype],
      remat=self.remat,
      rngs=nnx.Rngs(seed),
    )


@dataclasses.dataclass(frozen=True)
class ModelState:
  """A model split for jitted functions, with the encoder on the mesh.

  Attributes:
    settings: The settings that decided the model's structure.
    graphdef: Graph definition of the model.
    abstract_trainable: Shapes, dtypes and shardings of the trainable part
      (prototypes, extractor, bottleneck and decoder).
    initial_trainable: Function that computes the initial values of the
      trainable part on the mesh.
    frozen: State of the encoder, on the mesh, in the compute dtype.
    encoder_sha256: Checksum of the encoder's file, or "random".
  """

  settings: ModelSettings
  graphdef: nnx.GraphDef
  abstract_trainable: nnx.State
  initial_trainable: Callable[[], nnx.State]
  frozen: nnx.State
  encoder_sha256: str


def create(
  settings: ModelSettings, mesh: Mesh, *, encoder_weights: str, seed: int
) -> ModelState:
  """Builds a model on a mesh, where no device ever holds more than its shard.

  Args:
    settings: The settings that decide the model's structure.
    mesh: The devices that hold the model's arrays.
    encoder_weights: Source of the encoder's weights, see
      `pretrained.load_weights`.
    seed: Seed of the initial values.

  Returns:
    The model, with its encoder loaded.

  Raises:
    FileNotFoundError, ValueError: If the encoder's weights cannot be found or
      read (see `pretrained.load_weights`), or if a setting is unknown.
  """
  graphdef, trainable, frozen = _abstract(settings)
  weights = pretrained.load_weights(
    settings.encoder, encoder_weights, frozen["encoder"]
  )

  if weights.state is None:
    frozen = _initialiser(settings, mesh, _FROZEN)(seed)
  else:
    state = nnx.State({"encoder": weights.state})
    state = in_compute_dtype(state, DTYPES[settings.dtype])
    shardings = sharding.parameter_shardings(mesh, state)
    frozen = pretrained.place(state, shardings)
  return ModelState(
    settings=settings,
    graphdef=graphdef,
    abstract_trainable=sharding.abstract(
      trainable, sharding.parameter_shardings(mesh, trainable)
    ),
    initial_trainable=functools.partial(
      _initialiser(settings, mesh, _TRAINABLE), seed
    ),
    frozen=frozen,
    encoder_sha256=weights.sha256,
  )


def create_model(
  encoder: str,
  *,
  encoder_weights: str = "",
  num_prototypes: int = inp_former.NUM_PROTOTYPES,
  use_inps: bool = True,
  dtype: str = "float32",
  seed: int = 0,
  mesh: Mesh | None = None,
) -> inp_former.INPFormer:
  """Builds an INP-Former with a pretrained encoder, ready to be trained.

  Args:
    encoder: The encoder's name, a key of `ENCODERS`.
    encoder_weights: The source of the encoder's weights; by default the file
      of that name, from this machine or the Hugging Face Hub. See
      `load_encoder`.
    num_prototypes: The number of INPs.
    use_inps: Whether the model has INPs; False is the paper's ablation.
    dtype: The compute dtype, "float32" or "bfloat16". The frozen encoder is
      held in it; all other parameters are float32.
    seed: Seed of the initial values of everything but the encoder.
    mesh: The devices that the model is placed on; by default the first one
      alone.

  Returns:
    The model. `split` separates the part to be trained from the encoder.

  Raises:
    FileNotFoundError, ValueError: If the encoder's weights cannot be found or
      read, or a setting is unknown.
  """
  settings = ModelSettings(encoder, num_prototypes, use_inps, dtype)
  mesh = mesh or sharding.single_device_mesh()
  state = create(settings, mesh, encoder_weights=encoder_weights, seed=seed)
  return nnx.merge(state.graphdef, state.initial_trainable(), state.frozen)


# Models of the same settings, such as the models of one category after another,
# are traced and compiled only once.
@functools.lru_cache(maxsize=8)
def _abstract(
  settings: ModelSettings,
) -> tuple[nnx.GraphDef, nnx.State, nnx.State]:
  """Returns graph definition, abstract trainable and abstract frozen state."""
  return inp_former.split(nnx.eval_shape(settings.build))


@functools.lru_cache(maxsize=8)
def _initialiser(
  settings: ModelSettings, mesh: Mesh, part: int
) -> Callable[[int], nnx.State]:
  """Compiles a function from a seed to the initial values of a part."""
  _, *parts = _abstract(settings)
  shardings = sharding.parameter_shardings(mesh, parts[part])

  # Inside jit, what is not returned is never computed.
  def initialise(seed: int) -> nnx.State:
    _, *parts = inp_former.split(settings.build(seed))
    if part == _FROZEN:
      return in_compute_dtype(parts[part], DTYPES[settings.dtype])
    return parts[part]

  return jax.jit(initialise, static_argnums=0, out_shardings=shardings)


def in_compute_dtype(frozen: nnx.State, dtype: jnp.dtype) -> nnx.State:
  """Casts what the encoder would cast in every step, which is most of it.

  Layer norms and tokens stay float32, in which they are computed.

  Args:
    frozen: The state of the encoder.
    dtype: The compute dtype.

  Returns:
    The state, with the same results.
  """

  def cast(path: tuple[Any, ...], value: jax.Array):
    of_norm = any(str(name).startswith("norm") for name in path)
    once = path[-1] in ("kernel", "bias", "ls1", "ls2") and not of_norm
    return value.astype(dtype) if once else value

  flat = dict(nnx.to_flat_state(frozen))
  return nnx.from_flat_state(
    {path: leaf.replace(cast(path, leaf[...])) for path, leaf in flat.items()}
  )


def encoder_source(configured: str, workdir: pathlib.Path) -> str:
  """Returns the source of the encoder's weights of a run.

  Args:
    configured: Source given by the config, which takes precedence unless it
      is empty.
    workdir: Folder of the run. A converted checkpoint brings its encoder along
      as `encoder.safetensors`.

  Returns:
    A source for `pretrained.load_weights`; empty if the encoder is to be found
    by its name.
  """
  own = workdir / CONVERTED_ENCODER
  return configured or (str(own) if own.exists() else "")
