"""The models that a benchmark measures."""

import dataclasses
from collections.abc import Sequence

from jax.sharding import Mesh
from ml_collections import ConfigDict

from inp_former_jax import experiment, sharding
from inp_former_jax.field_names import naming_fields
from inp_former_jax.inference import trained
from inp_former_jax.inference.trained import TrainedModel
from inp_former_jax.training import model_state
from inp_former_jax.weights import pretrained


@naming_fields()
def load(
  config: ConfigDict, encoders: Sequence[str], workdir: str = ""
) -> list[TrainedModel]:
  """Loads the model of a run, or makes random ones.

  Args:
    config: The config of a run; sizes, dtype, batch size and mesh are read.
    encoders: Names of the encoders. Their models are initialised at random,
      because speed and memory do not depend on the values.
    workdir: Folder of a run whose model is taken instead of those of
      `encoders`, or "".

  Returns:
    The models, which know the sizes of their images.

  Raises:
    ValueError: If an encoder is unknown, or if the number of devices does not
      divide the batch.
    CheckpointError: If the workdir has no checkpoint that can be read.
  """
  mesh = sharding.make_mesh(**config.mesh)
  sharding.check_batch_size(mesh, config.batch_size)
  if not workdir:
    return [_initialise(config, encoder, mesh) for encoder in encoders]
  model = trained.load(workdir, mesh)
  if model.preprocessing is None:  # that of a converted checkpoint
    sizes = experiment.preprocessing(config)
    model = dataclasses.replace(model, preprocessing=sizes)
  return [model]


def _initialise(config: ConfigDict, encoder: str, mesh: Mesh) -> TrainedModel:
  settings = dataclasses.replace(
    experiment.model_settings(config), encoder=encoder
  )
  state = model_state.create(
    settings, mesh, encoder_weights=pretrained.RANDOM, seed=config.seed
  )
  return trained.from_state(
    state,
    state.initial_trainable(),
    mesh,
    preprocessing=experiment.preprocessing(config),
    size=config.evaluation.size,
    top_fraction=config.evaluation.top_fraction,
  )
