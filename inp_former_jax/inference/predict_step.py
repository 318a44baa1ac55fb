"""Builds the function from images to anomaly maps and scores, for all uses."""

import dataclasses
import functools
from collections.abc import Callable

import jax
from flax import nnx
from jax.sharding import Mesh

from inp_former_jax.data import transforms
from inp_former_jax.inference import scoring
from inp_former_jax.models import placement
from inp_former_jax.sharding import batch_sharding


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Prediction:
  """Anomaly maps and scores of a batch of images.

  Attributes:
    anomaly_map: The anomaly maps, (B, S, S) float32, means of 1 - cosine, in
      [0, 2].
    image_score: The image scores, (B,) float32, in [0, 2].
  """

  anomaly_map: jax.Array
  image_score: jax.Array


# Cached, so that the models of one category after another, and every load of
# the same model, share what is compiled.
@functools.lru_cache(maxsize=8)
def make_predict_step(
  graphdef: nnx.GraphDef,
  mesh: Mesh,
  *,
  patch_size: int,
  size: int = scoring.EVALUATION_SIZE,
  top_fraction: float = scoring.TOP_FRACTION,
  zero_shot: bool = False,
) -> Callable[[nnx.State, nnx.State, jax.Array], Prediction]:
  """Builds the jitted prediction function.

  Args:
    graphdef: Graph definition of an `INPFormer`, from `inp_former.split`.
    mesh: The devices over which the images are spread.
    patch_size: Side of the encoder's patches in pixels.
    size: Side of the anomaly map in pixels.
    top_fraction: Share of the map's pixels whose mean is the image score.
    zero_shot: Whether a patch is scored by its distance to the nearest INP of
      its own image, instead of by how badly it is reconstructed.

  Returns:
    A function (trainable, frozen, images) -> Prediction, where the images are
    uint8 (B, H, W, 3). It compiles once per shape.
  """
  predict_step = predict_function(
    graphdef,
    patch_size=patch_size,
    size=size,
    top_fraction=top_fraction,
    zero_shot=zero_shot,
  )
  predict_step = placement.on_mesh(mesh)(predict_step)
  return jax.jit(predict_step, out_shardings=batch_sharding(mesh))


def predict_function(
  graphdef: nnx.GraphDef,
  *,
  patch_size: int,
  size: int,
  top_fraction: float,
  zero_shot: bool,
) -> Callable[[nnx.State, nnx.State, jax.Array], Prediction]:
  """Builds the prediction function, which belongs to no mesh yet.

  Args:
    graphdef: Graph definition of an `INPFormer`, from `inp_former.split`.
    patch_size: Side of the encoder's patches in pixels.
    size: Side of the anomaly map in pixels.
    top_fraction: Share of the map's pixels whose mean is the image score.
    zero_shot: Whether a patch is scored by its distance to the nearest INP of
      its own image, instead of by how badly it is reconstructed.

  Returns:
    A function (trainable, frozen, images) -> Prediction, where the images are
    uint8 (B, H, W, 3).
  """

  def predict_step(trainable, frozen, images):
    output = nnx.merge(graphdef, trainable, frozen)(
      transforms.normalise(images)
    )
    crop = images.shape[1:3]
    grid = tuple(side // patch_size for side in crop)
    if zero_shot:
      distance = output.inp_distance
    else:
      distance = scoring.group_distance(
        output.encoder_groups, output.decoder_groups
      )
    maps = scoring.anomaly_map(distance, grid, crop, size)
    return Prediction(maps, scoring.image_score(maps, top_fraction))

  return predict_step
