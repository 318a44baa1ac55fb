"""Checks the model against reference arrays for `verify`."""

import pathlib
import re
from collections.abc import Iterator, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from inp_former_jax.inference import scoring
from inp_former_jax.models import inp_former as model_lib
from inp_former_jax.models.similarity import cosine_similarity
from inp_former_jax.training import losses
from inp_former_jax.weights import files, rules
from weights_conversion import inp_former_names
from weights_conversion.verification.comparison import (
  ENCODER,
  GRADIENT,
  Comparison,
  Result,
  channels_last,
)
from weights_conversion.verification.encoder import check_blocks


def load_model(
  path: pathlib.Path, dtype: jax.typing.DTypeLike = jnp.float32
) -> tuple[model_lib.INPFormer, dict]:
  """Loads the model whose parameters lie beside a reference file.

  Args:
    path: Path of the reference file, such as `tiny_forward.npz`.
    dtype: Compute dtype.

  Returns:
    The model, and the arrays of its parameters by the original's names.

  Raises:
    FileNotFoundError: If there is no file of parameters.
    ValueError: If the parameters cannot be read or fit no model.
  """
  params = path.with_name(re.sub(r"_[a-z]+\.npz$", "_params.npz", path.name))
  if not params.exists():
    raise FileNotFoundError(f"{path} needs {params.name} beside it.")
  arrays = dict(files.read_arrays(params))
  return inp_former_names.load_model(arrays, params.name, dtype), arrays


def _to_maps(tokens: jax.Array, like: np.ndarray) -> np.ndarray:
  """Reshapes tokens (B, H * W, C) to (B, C, H, W), as in the reference."""
  return np.asarray(tokens).transpose(0, 2, 1).reshape(like.shape)


def check_forward(compare: Comparison) -> Iterator[Result]:
  """Compares a forward pass, with the parameters beside the reference file.

  Args:
    compare: The comparison with a file for `check_model`.

  Yields:
    A result per array.
  """
  model, arrays = load_model(compare.path)
  yield from check_model(compare, model, arrays)


def check_model(
  compare: Comparison,
  model: model_lib.INPFormer,
  arrays: Mapping[str, np.ndarray],
) -> Iterator[Result]:
  """Compares a forward pass, from the encoder blocks to maps and scores.

  Args:
    compare: The comparison with a file of `image`, normalised (B, 3, H, W), and
      of the arrays computed from it.
    model: The whole model.
    arrays: The model's parameters by the original's names, from which the
      encoder is also built alone.

  Yields:
    A result per array.
  """
  reference = compare.reference
  images = channels_last(reference["image"])
  yield from check_blocks(compare, arrays, images)
  output = model(images)
  assert output.inps is not None  # the original always has INPs
  assert output.inp_distance is not None
  fused = model_lib.mean_features(model.encoder.target_features(images))
  yield from compare("fused_tokens", fused, ENCODER)
  for i in range(2):
    for name, groups in (
      (f"en_{i}", output.encoder_groups),
      (f"de_{i}", output.decoder_groups),
    ):
      group = _to_maps(groups[i], reference[name])
      yield from compare(name, group, ENCODER)
  yield from compare("inps", output.inps, ENCODER)
  yield from compare("inp_distance", output.inp_distance, ENCODER)
  similarity = cosine_similarity(fused[:, :, None], output.inps[:, None])
  yield from compare("inp_index", similarity.argmax(-1), 0)
  coherence = losses.coherence_loss(output.inp_distance)
  yield from compare("coherence_loss", coherence, ENCODER)
  patch_size = model.encoder.variant.patch_size
  yield from _check_maps(compare, output, images.shape[1:3], patch_size)


def _check_maps(compare, output, crop, patch_size) -> Iterator[Result]:
  """Compares anomaly maps at both stages, the score and the zero-shot map."""
  grid = tuple(side // patch_size for side in crop)
  distance = scoring.group_distance(
    output.encoder_groups, output.decoder_groups
  )
  full = scoring.full_anomaly_map(distance, grid, crop)[:, None]
  yield from compare("anomaly_map_full", full, ENCODER)
  for key in compare.reference:
    if match := re.fullmatch(r"(anomaly|zero_shot)_map_(\d+)_smoothed", key):
      zero_shot = match[1] == "zero_shot"
      maps = scoring.anomaly_map(
        output.inp_distance if zero_shot else distance,
        grid,
        crop,
        int(match[2]),
      )
      yield from compare(key, maps[:, None], ENCODER)
      if not zero_shot:
        score = scoring.image_score(maps)
        yield from compare("image_score_top1pct", score, ENCODER)


def check_losses(compare: Comparison) -> Iterator[Result]:
  """Compares losses, and the gradient of every trainable parameter.

  Args:
    compare: The comparison with a file of losses and gradients, beside which
      lie those of the forward pass and of the parameters.

  Yields:
    A result per array.
  """
  model, _ = load_model(compare.path)
  forward = compare.path.with_name(
    compare.path.name.replace("_losses", "_forward")
  )
  images = channels_last(Comparison(forward).reference["image"])
  graphdef, trainable, frozen = model_lib.split(model)

  def total(trainable):
    output = nnx.merge(graphdef, trainable, frozen)(images)
    return losses.total_loss(output)

  # Compiled, as training computes it: the decoder amplifies rounding, and
  # operation by operation the rounding is another one.
  grads, parts = jax.jit(jax.grad(total, has_aux=True))(trainable)
  yield from compare("soft_mining_loss", parts["soft_mining_loss"], ENCODER)
  yield from compare("coherence_loss", parts["coherence_loss"], ENCODER)
  yield from compare("total_loss", parts["loss"], ENCODER)
  yield from check_named(compare, "grad/", grads, GRADIENT)
  output = model(images)
  mining = losses.soft_mining_loss(output.encoder_groups, output.decoder_groups)
  yield from compare("sm_only/loss", mining, ENCODER)
  for key in compare.reference:
    match = re.fullmatch(r"sm_(?:only|gamma(\d+))/grad_de_(\d)", key)
    if match:
      gamma = losses.GAMMA if match[1] is None else float(match[1])
      grads = jax.grad(losses.soft_mining_loss, argnums=1)(
        output.encoder_groups, output.decoder_groups, gamma
      )
      gradient = _to_maps(grads[int(match[2])], compare.reference[key])
      yield from compare(key, gradient, GRADIENT, relative=True)


def check_named(
  compare: Comparison, prefix: str, state: nnx.State, tolerance: float
) -> Iterator[Result]:
  """Compares arrays of the trainable part by their names in the original.

  Args:
    compare: The comparison with a file that holds the arrays.
    prefix: Prefix of their keys in the file.
    state: State of the trainable part, or its gradient.
    tolerance: Largest difference allowed, relative to the largest value of
      each array.

  Yields:
    A result per array.
  """
  ours = {
    "/".join(map(str, path)): variable.get_value()
    for path, variable in nnx.to_flat_state(state)
  }
  named = {
    key.removeprefix(prefix): value
    for key, value in compare.reference.items()
    if key.startswith(prefix)
  }
  shapes = {path: value.shape for path, value in ours.items()}
  table = inp_former_names.trainable_rules()
  converted = rules.convert(named, table, shapes, compare.path.name)
  for name in named:
    path = rules.target_path(name, table)
    assert path is not None  # `convert` raises an error for unknown names
    difference = np.max(np.abs(ours[path] - converted[path]))
    scale = max(float(np.max(np.abs(converted[path]))), 1e-12)
    label = f"{compare.path.name}: {prefix}{name}"
    compare.compared.add(prefix + name)
    yield Result(label, float(difference) / scale, tolerance, relative=True)
