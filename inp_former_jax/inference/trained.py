"""Loads a trained model from a folder, ready to predict.

Everything that predicts gets its model here.
"""

import dataclasses
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from inp_former_jax import sharding
from inp_former_jax.data.transforms import Preprocessing
from inp_former_jax.inference import scoring
from inp_former_jax.inference.calibration import Options
from inp_former_jax.inference.predict_step import (
  Prediction,
  make_predict_step,
)
from inp_former_jax.models import inp_former
from inp_former_jax.training import identity, model_state
from inp_former_jax.training.checkpoints import (
  checkpoint,
  place,
  saved_runs,
)
from inp_former_jax.training.model_state import ModelSettings, ModelState


@dataclasses.dataclass(frozen=True, repr=False)
class TrainedModel:
  """A model on its devices, ready to predict.

  Attributes:
    settings: Encoder, number of INPs and compute dtype.
    step: Number of steps that the model was trained for.
    preprocessing: Sizes of the images that it was trained on; None if they are
      not known, as for a converted checkpoint.
    map_size: Side of the anomaly maps in pixels.
    top_fraction: Share of a map's pixels, the highest, whose mean is the image
      score.
    zero_shot: Whether a patch is scored by its distance to the nearest INP of
      its own image.
    mesh: The devices that its arrays are on.
    graphdef: Structure of the Flax module.
    trainable: State of extractor, bottleneck and decoder. It may hold shapes
      alone, until `at` puts values in their place.
    frozen: State of the encoder.
    predict_step: Jitted function (trainable, frozen, images) -> Prediction.
  """

  settings: ModelSettings
  step: int
  preprocessing: Preprocessing | None
  map_size: int
  top_fraction: float
  zero_shot: bool
  mesh: Mesh
  graphdef: nnx.GraphDef
  trainable: nnx.State
  frozen: nnx.State
  predict_step: Callable[[nnx.State, nnx.State, jax.Array], Prediction]

  def predict(self, images: jax.Array | np.ndarray) -> Prediction:
    """Scores a batch of images; compiles once per shape.

    Args:
      images: (B, H, W, 3) uint8, RGB, resized and cropped. A jax array is the
        global batch; a numpy array holds the rows of this process. The number
        of devices must divide B.

    Returns:
      Anomaly maps and scores of the global batch.
    """
    if getattr(images, "ndim", None) != 4 or images.dtype != np.uint8:
      found = getattr(images, "shape", type(images).__name__)
      raise ValueError(
        "`images` must be a batch (B, height, width, 3) of uint8, as "
        f"load_image returns one; found {found} of "
        f"{getattr(images, 'dtype', 'no dtype')}. Add an axis to a single "
        "image, image[None], and do not normalise it."
      )
    if not isinstance(images, jax.Array):
      batch_sharding = sharding.batch_sharding(self.mesh)
      images = sharding.to_global(images, batch_sharding)
    return self.predict_step(self.trainable, self.frozen, images)

  def __repr__(self) -> str:
    """Describes the model without its arrays."""
    settings = self.settings
    return (
      f"TrainedModel({settings.encoder}, {settings.num_prototypes} INPs, "
      f"{settings.dtype}, step {self.step}, {self.preprocessing})"
    )

  @property
  def options(self) -> Options:
    """The way in which it looks at images, which a calibration must share."""
    return Options(
      zero_shot=self.zero_shot,
      map_size=self.map_size,
      top_fraction=self.top_fraction,
    )

  def merged(self) -> inp_former.INPFormer:
    """Returns the model as a Flax module."""
    return nnx.merge(self.graphdef, self.trainable, self.frozen)

  def at(self, step: int, trainable: nnx.State) -> "TrainedModel":
    """Returns this model with other parameters, without compiling it again.

    Args:
      step: Number of steps that these parameters were trained for.
      trainable: State of extractor, bottleneck and decoder.
    """
    return dataclasses.replace(self, step=step, trainable=trainable)


def from_state(
  state: ModelState,
  trainable: nnx.State,
  mesh: Mesh,
  *,
  step: int = 0,
  preprocessing: Preprocessing | None = None,
  size: int = scoring.EVALUATION_SIZE,
  top_fraction: float = scoring.TOP_FRACTION,
  zero_shot: bool = False,
) -> TrainedModel:
  """Returns a model that predicts, from the state of one in training.

  Args:
    state: The model on the mesh.
    trainable: Its trainable part, values or shapes alone; `TrainedModel.at`
      exchanges it.
    mesh: The devices that its arrays are on.
    step: Number of steps that the model was trained for.
    preprocessing: Sizes of the images that it is trained on.
    size: Side of the anomaly maps in pixels.
    top_fraction: Share of a map's pixels, the highest, whose mean is the image
      score.
    zero_shot: Whether a patch is scored by its distance to the nearest INP of
      its own image.
  """
  return TrainedModel(
    settings=state.settings,
    step=step,
    preprocessing=preprocessing,
    map_size=size,
    top_fraction=top_fraction,
    zero_shot=zero_shot,
    mesh=mesh,
    graphdef=state.graphdef,
    trainable=trainable,
    frozen=state.frozen,
    predict_step=make_predict_step(
      state.graphdef,
      mesh,
      patch_size=state.settings.spec.patch_size,
      size=size,
      top_fraction=top_fraction,
      zero_shot=zero_shot,
    ),
  )


def on_this_process(model: TrainedModel) -> TrainedModel:
  """Copies a model whose mesh spans several processes to this one's devices.

  All processes of the model's mesh must call this function.

  Args:
    model: The model.

  Returns:
    The model on all devices of this process; the model itself if there is only
    one process.
  """
  if jax.process_count() == 1:
    return model
  mesh = sharding.local_mesh()
  everywhere = sharding.replicated(mesh)
  trainable, frozen = (
    jax.tree.map(
      lambda x: jax.device_put(sharding.to_host(x), everywhere), part
    )
    for part in (model.trainable, model.frozen)
  )
  return dataclasses.replace(
    model,
    mesh=mesh,
    trainable=trainable,
    frozen=frozen,
    predict_step=make_predict_step(
      model.graphdef,
      mesh,
      patch_size=model.settings.spec.patch_size,
      size=model.map_size,
      top_fraction=model.top_fraction,
      zero_shot=model.zero_shot,
    ),
  )


def load(
  workdir: str | os.PathLike,
  mesh: Mesh | None = None,
  *,
  expected: Mapping[str, Any] | None = None,
  encoder_weights: str | None = None,
  dtype: str | None = None,
  size: int | None = None,
  top_fraction: float | None = None,
  zero_shot: bool = False,
  use: str = saved_runs.NEWEST,
) -> TrainedModel:
  """Loads the model of a checkpoint of a folder.

  Args:
    workdir: Folder of a run, or of a converted checkpoint.
    mesh: The devices to place the model on; by default all devices.
    expected: Description of the model that is expected, as a nested dict with
      the config's names. Those of `identity.MODEL_FIELDS` that it contains must
      agree with the checkpoint.
    encoder_weights: Source of the encoder's weights, see
      `pretrained.load_weights`; by default the source that the run used.
      Either way it must be the encoder that the run used.
    dtype: Compute dtype; by default that of the run, or float32 for a converted
      checkpoint.
    size: Side of the anomaly maps in pixels; by default that of the run.
    top_fraction: Share of a map's pixels, the highest, whose mean is the image
      score; by default that of the run.
    zero_shot: Whether a patch is scored by its distance to the nearest INP of
      its own image.
    use: Which checkpoint, "newest" or "best"; a damaged one is passed over with
      a warning.

  Returns:
    The model, ready to predict.

  Raises:
    CheckpointError: If there is no such checkpoint, all are damaged, or it
      holds another model, encoder or preprocessing than expected.
    FileNotFoundError, ValueError: If the encoder's weights cannot be found or
      read.
  """
  workdir = pathlib.Path(workdir).expanduser().absolute()
  mesh = mesh or sharding.make_mesh()
  folder = place.of_workdir(workdir)
  step, saved = saved_runs.read_identity(workdir, use)
  identity.require_inp_former(folder / str(step), saved)
  wanted = saved | identity.flatten(expected or {})
  identity.require_same_model(folder / str(step), saved, wanted)
  if encoder_weights is None:
    encoder_weights = saved.get("model.encoder_weights", "")
  state = model_state.create(
    ModelSettings(
      encoder=saved["model.encoder"],
      num_prototypes=saved["model.num_prototypes"],
      use_inps=saved["model.use_inps"],
      dtype=dtype or saved.get("model.dtype", "float32"),
    ),
    mesh,
    encoder_weights=model_state.encoder_source(encoder_weights, workdir),
    seed=saved.get("seed", 0),
  )
  found = wanted | {"encoder.sha256": state.encoder_sha256}
  with checkpoint.Checkpointer(folder, found) as checkpointer:
    trainable = checkpointer.restore_trainable(state.abstract_trainable, step)
  return from_state(
    state,
    trainable,
    mesh,
    step=step,
    preprocessing=_preprocessing(wanted),
    size=size or saved.get("evaluation.size", scoring.EVALUATION_SIZE),
    top_fraction=top_fraction
    or saved.get("evaluation.top_fraction", scoring.TOP_FRACTION),
    zero_shot=zero_shot,
  )


def _preprocessing(fields: Mapping[str, Any]) -> Preprocessing | None:
  """Returns the sizes in a flat identity; None if it lacks them."""
  if not {"data.resize", "data.crop"} <= fields.keys():
    return None
  return Preprocessing.from_sides(
    fields["data.resize"],
    fields["data.crop"],
    resize_width=fields.get("data.resize_width", 0),
    crop_width=fields.get("data.crop_width", 0),
  )
