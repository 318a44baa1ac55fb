"""Checks optimizer, preprocessing, augmentations and metrics for `verify`."""

import re
from collections.abc import Iterator
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from PIL import Image

from inp_former_jax.data import transforms
from inp_former_jax.data.augment import AUGMENTATIONS, augment
from inp_former_jax.data.masks import binary_mask
from inp_former_jax.evaluation import metrics
from inp_former_jax.training import optimizer
from weights_conversion.verification.comparison import (
  BLOCK,
  EXACT_METRIC,
  STREAMING_METRIC,
  Comparison,
  Result,
  channels_last,
)


def check_optimizer(compare: Comparison) -> Iterator[Result]:
  """Compares the trajectory of some tensors under StableAdamW alone.

  Args:
    compare: The comparison with a file of initial tensors, their gradients, the
      optimizer's settings and the tensors after each step.

  Yields:
    A result per step and tensor.
  """
  ref = compare.reference
  adamw = optimizer.stable_adamw(
    float(ref["lr"]),
    float(ref["b1"]),
    float(ref["b2"]),
    float(ref["eps"]),
    float(ref["weight_decay"]),
  )
  tensors = sorted(k for k in ref if k.startswith("init_"))
  params = [jnp.asarray(ref[k]) for k in tensors]
  state = adamw.init(params)
  for t in range(sum(bool(re.fullmatch(r"grad_\d+_0", k)) for k in ref)):
    indices = range(len(params))
    grads = [jnp.asarray(ref[f"grad_{t:02d}_{i}"]) for i in indices]
    updates, state = adamw.update(grads, state, params)
    # The result has the structure of the argument, but its type is wider.
    params = cast(list[jax.Array], optax.apply_updates(params, updates))
    for i in indices:
      yield from compare(f"param_{t:02d}_{i}", params[i], BLOCK, relative=True)


def check_preprocessing(compare: Comparison) -> Iterator[Result]:
  """Compares preprocessed images and masks, bit for bit.

  Args:
    compare: The comparison with a file of images, masks and their results.

  Yields:
    A result per image, and results per mask.
  """
  ref = compare.reference
  resize, crop = int(ref["resize"]), int(ref["crop"])
  preprocessing = transforms.Preprocessing((resize, resize), (crop, crop))
  for key, array in ref.items():
    if match := re.fullmatch(r"image_(\d+)", key):
      image = transforms.resize_and_crop(Image.fromarray(array), preprocessing)
      image = transforms.normalise(np.asarray(image)).transpose(2, 0, 1)
      yield from compare(f"pre_{match[1]}", image, 0)
    if match := re.fullmatch(r"mask_(\d+)", key):
      yield from _check_mask(compare, match[1], preprocessing)


def _check_mask(compare, index, preprocessing) -> Iterator[Result]:
  mask = Image.fromarray(compare.reference[f"mask_{index}"])
  mask = np.asarray(transforms.resize_and_crop(mask, preprocessing))
  scaled = mask[None].astype(np.float32) / 255
  yield from compare(f"mask_pre_{index}", scaled, 0)
  for key in compare.reference:
    if match := re.fullmatch(rf"mask_eval(\d+)_{index}", key):
      evaluated = binary_mask(mask, int(match[1]))
      yield from compare(key, evaluated, 0)


def check_augmentations(compare: Comparison) -> Iterator[Result]:
  """Compares all augmentations of an image, computed in one batch.

  Args:
    compare: The comparison with a file of an image and its augmentations.

  Yields:
    A result per augmentation.
  """
  index = jnp.arange(1, len(AUGMENTATIONS))
  image = jnp.asarray(channels_last(compare.reference["image"]))
  augmented = jax.jit(augment)(jnp.repeat(image, len(index), axis=0), index)
  # This reverses channels_last and adds the reference's batch axis of size 1.
  augmented = np.moveaxis(np.asarray(augmented), -1, 1)[:, None]
  for row, result in zip(AUGMENTATIONS[1:], augmented, strict=True):
    key = row.name
    if key.startswith("rotate_"):  # the reference names its angle in radians
      key = f"rotate_{np.deg2rad(float(key.removeprefix('rotate_'))):+.5f}"
    yield from compare(key, result, BLOCK)


def check_metrics(compare: Comparison) -> Iterator[Result]:
  """Compares exact metrics with the reference, and streaming ones with exact.

  Args:
    compare: The comparison with a file of maps, masks, scores and metrics.

  Yields:
    A result per metric.
  """
  ref = compare.reference
  maps, masks = ref["anomaly_maps"], ref["masks"] > 0
  image = metrics.image_metrics(ref["labels"], ref["image_scores"])
  exact = metrics.exact_pixel_metrics(maps, masks)
  histograms = metrics.PixelHistograms()
  # Maps are rescaled to [0, 2], the range of the grid, which changes no metric
  # because only the order of the scores matters.
  histograms.add(2 * (maps - maps.min()) / np.ptp(maps), masks)
  streaming = histograms.metrics()
  for name in ("auroc", "ap", "f1max"):
    yield from compare(f"i_{name}", image[f"image_{name}"], EXACT_METRIC)
    yield from compare(f"p_{name}", exact[f"pixel_{name}"], EXACT_METRIC)
  # The reference's curve has 5,000 thresholds.
  curve = metrics.aupro(maps, masks, num_thresholds=5000)
  yield from compare("aupro_exact", curve, EXACT_METRIC)
  binned = metrics.aupro(maps, masks, num_thresholds=200)
  yield from compare("adeval_aupro", binned, EXACT_METRIC)
  for name, value in streaming.items():
    yield Result(
      f"{compare.path.name}: streaming {name} against exact",
      abs(value - exact[name]),
      STREAMING_METRIC,
    )
