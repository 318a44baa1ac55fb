"""Checks the encoder against reference arrays for `verify`."""

import pathlib
import re
from collections.abc import Iterator, Mapping

import jax.numpy as jnp
import numpy as np
from flax import nnx

from inp_former_jax.data import transforms
from inp_former_jax.models import inp_former as model_lib
from inp_former_jax.models import vit
from inp_former_jax.weights import dinov2_rules, files, rules
from weights_conversion import inp_former_names
from weights_conversion.verification.comparison import (
  BLOCK,
  ENCODER,
  Comparison,
  Result,
  channels_last,
)


def check_blocks(
  compare: Comparison, arrays: Mapping[str, np.ndarray], images: np.ndarray
) -> Iterator[Result]:
  """Compares tokens and all blocks, even those that INP-Former never runs.

  Args:
    compare: The comparison with a file of `tokens_in`, `encoder_block_II` and
      `pos_embed_S`.
    arrays: The arrays of an official INP-Former checkpoint, by key.
    images: Normalised images, (B, H, W, 3).

  Yields:
    A result per array.
  """
  architecture = inp_former_names.read_architecture(
    {key: value.shape for key, value in arrays.items()}, compare.path
  )
  variant = architecture.variant
  encoder = {
    key.removeprefix("encoder."): value
    for key, value in arrays.items()
    if key.startswith("encoder.")
  }
  model = _build_encoder(
    encoder, variant, architecture.num_registers, variant.depth, compare.path
  )
  yield from compare("tokens_in", model.embed(images), BLOCK)
  for i, tokens in enumerate(model(images)):
    yield from compare(f"encoder_block_{i:02d}", tokens, BLOCK)
  position = jnp.asarray(encoder["pos_embed"])
  for key in compare.reference:
    if match := re.fullmatch(r"pos_embed_(\d+)", key):
      side = int(match[1]) // variant.patch_size
      table = vit.resize_position_table(position[:, 1:], side, side)
      table = jnp.concatenate([position[:, :1], table], axis=1)
      yield from compare(key, table, BLOCK)


def _build_encoder(
  arrays: Mapping[str, np.ndarray],
  variant: vit.Variant,
  num_registers: int,
  num_blocks: int | None,
  source: pathlib.Path,
) -> vit.VisionTransformer:
  graphdef, state = nnx.split(
    nnx.eval_shape(
      lambda: vit.VisionTransformer(
        variant, num_registers, num_blocks=num_blocks, rngs=nnx.Rngs(0)
      )
    )
  )
  table = dinov2_rules.encoder_rules(len(state["blocks"]))
  state = rules.convert_state(arrays, table, state, source)
  return nnx.merge(graphdef, state)


def check_real_features(
  compare: Comparison, encoder: pathlib.Path, images: pathlib.Path | None
) -> Iterator[Result]:
  """Compares the groups of a real encoder on real images.

  Args:
    compare: The comparison with a file of `groupG_S`, of which large ones have
      only every k-th patch or channel, and of `image_S` or else `files` (paths
      below `images`).
    encoder: File of weights with facebookresearch/dinov2 names.
    images: Root of the image files; without it, only `image_S` is used.

  Yields:
    A result per group and size.
  """
  model = _load_encoder(encoder)
  sizes = {int(k.split("_")[1]) for k in compare.reference if "group0_" in k}
  for size in sorted(sizes):
    batch = _real_images(compare, size, images)
    if batch is None:
      continue
    features = model.target_features(batch)
    half = len(features) // 2
    for i, part in enumerate((features[:half], features[half:])):
      key = f"group{i}_{size}"
      group = np.asarray(model_lib.mean_features(part))
      shape = compare.reference[key].shape
      patches, channels = (-(-group.shape[a] // shape[a]) for a in (1, 2))
      yield from compare(key, group[:, ::patches, ::channels], ENCODER)


def _load_encoder(path: pathlib.Path) -> vit.VisionTransformer:
  """Loads the encoder of a file, whose width tells the variant."""
  arrays = files.read_arrays(path)
  width = arrays["cls_token"].shape[-1]
  (variant,) = [v for v in vit.VARIANTS.values() if v.width == width]
  num_registers = arrays.get("register_tokens", np.empty((1, 0))).shape[1]
  return _build_encoder(arrays, variant, num_registers, None, path)


def _real_images(
  compare: Comparison, crop: int, images: pathlib.Path | None
) -> np.ndarray | None:
  """Returns images (B, crop, crop, 3) from the reference or the image files."""
  if f"image_{crop}" in compare.reference:
    return channels_last(compare.reference[f"image_{crop}"])
  if images is None:
    return None
  resize = crop * 8 // 7  # 256 -> 224, 448 -> 392
  preprocessing = transforms.Preprocessing((resize, resize), (crop, crop))
  files = [images / name for name in compare.reference["files"]]
  loaded = [transforms.load_image(file, preprocessing) for file in files]
  return transforms.normalise(np.stack(loaded))
