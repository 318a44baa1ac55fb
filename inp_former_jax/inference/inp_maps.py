"""Shows what a model's INPs attend to, and how far each patch is from them.

These are the paper's Fig. 4 and 7: the cross-attention of every INP over the
patches, and the distance of every patch to its nearest INP.
"""

import dataclasses
import functools
from collections.abc import Callable

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from inp_former_jax import sharding
from inp_former_jax.data import transforms
from inp_former_jax.inference.trained import TrainedModel
from inp_former_jax.models import inp_former


@dataclasses.dataclass(frozen=True, eq=False)
class InpMaps:
  """The INPs of images, as maps of n rows and m columns of patches.

  Attributes:
    attention: Share of each INP that each patch contributes, the mean over the
      heads of the extractor's attention, (B, M, n, m) float32; the sum over the
      patches is 1.
    distance: Distance of each patch to its nearest INP, (B, n, m) float32, in
      [0, 2].
  """

  attention: np.ndarray
  distance: np.ndarray


def inp_maps(model: TrainedModel, images: np.ndarray) -> InpMaps:
  """Computes the INP maps of a few images.

  Only the encoder and the INP extractor are run. Every device computes all
  images, so they may be of any number. All processes of the model's mesh must
  call this function with the same images.

  Args:
    model: A model with INPs.
    images: (B, H, W, 3) uint8, RGB, resized and cropped.

  Returns:
    The maps, equal on all processes.

  Raises:
    ValueError: If the model has no INPs.
  """
  if not model.settings.use_inps:
    raise ValueError(
      "The model has no INPs: it was trained with `use_inps`=False."
    )
  placed = sharding.to_global(images, sharding.replicated(model.mesh))
  attention, distance = _make_inp_step(model.graphdef, model.mesh)(
    model.trainable, model.frozen, placed
  )
  patch_size = model.settings.spec.patch_size
  grid = tuple(side // patch_size for side in images.shape[1:3])
  return InpMaps(
    attention=np.asarray(attention).reshape(*attention.shape[:2], *grid),
    distance=np.asarray(distance).reshape(-1, *grid),
  )


@functools.lru_cache(maxsize=8)
def _make_inp_step(
  graphdef: nnx.GraphDef, mesh: Mesh
) -> Callable[..., tuple[jax.Array, jax.Array]]:
  """Builds the jitted function from images to attention and distance."""

  def inp_step(trainable, frozen, images):
    model = nnx.merge(graphdef, trainable, frozen)
    features = model.encoder.target_features(transforms.normalise(images))
    fused = inp_former.mean_features(features)
    inps, attention = model.extract_inps(fused)
    # In float32, so that the shares still sum to 1 in a bfloat16 model.
    shares = attention.astype(np.float32).mean(axis=1)
    return shares, inp_former.inp_distance(fused, inps)

  return jax.jit(inp_step, out_shardings=sharding.replicated(mesh))
