"""Checks of the model against reference arrays; see verify.py."""

import dataclasses
import pathlib
import re
from collections.abc import Iterator, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from inp_former_jax.inference import scoring
from inp_former_jax.models import inp_former as model_lib
from inp_former_jax.models import vit
from inp_former_jax.models.similarity import cosine_similarity
from inp_former_jax.training import losses, optimizer, train_step
from inp_former_jax.weights import files, rules
from weights_conversion import inp_former_names
from weights_conversion.encoder_checks import check_blocks
from weights_conversion.reference import (
  ENCODER,
  FINAL,
  GRADIENT,
  NORM,
  SCHEDULE,
  TRAINING,
  Comparison,
  Result,
  channels_last,
)

NUM_ROUNDINGS = 4  # training runs tried before the reference is called off


def _load_model(
  path: pathlib.Path, dtype: jnp.dtype = jnp.float32
) -> tuple[model_lib.INPFormer, dict]:
  """The model whose parameters stand beside a reference file."""
  params = path.with_name(re.sub(r"_[a-z]+\.npz$", "_params.npz", path.name))
  if not params.exists():
    raise FileNotFoundError(f"{path} needs {params.name} beside it.")
  arrays = dict(files.read_arrays(params))
  return inp_former_names.load_model(arrays, params.name, dtype), arrays


def _to_maps(tokens: jax.Array, like: np.ndarray) -> np.ndarray:
  """(B, H * W, C) -> (B, C, H, W), shaped as a reference."""
  return np.asarray(tokens).transpose(0, 2, 1).reshape(like.shape)


def check_forward(compare: Comparison) -> Iterator[Result]:
  """Encoder blocks and all that follows, with the parameters beside it."""
  model, arrays = _load_model(compare.path)
  yield from check_model(compare, model, arrays)


def check_model(
  compare: Comparison,
  model: model_lib.INPFormer,
  arrays: Mapping[str, np.ndarray],
) -> Iterator[Result]:
  """Encoder blocks, position tables, groups, INPs, losses, maps, scores.

  Args:
    compare: Holds `image`, (B, 3, H, W) normalised, and what comes of it.
    model: The whole model.
    arrays: Its parameters by the original's names, for the encoder alone.

  Yields:
    A result per array.
  """
  reference = compare.reference
  images = channels_last(reference["image"])
  yield from check_blocks(compare, arrays, images)
  output = model(images)
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
  yield from _check_maps(compare, output, images.shape[1:3])


def _check_maps(compare, output, crop) -> Iterator[Result]:
  """Anomaly maps at both stages, the score, and the zero-shot map."""
  grid = tuple(side // vit.PATCH_SIZE for side in crop)
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
  """Loss values, and the gradient of every trainable parameter."""
  model, _ = _load_model(compare.path)
  forward = compare.path.with_name(
    compare.path.name.replace("_losses", "_forward")
  )
  images = channels_last(Comparison(forward).reference["image"])
  graphdef, trainable, frozen = model_lib.split(model)

  def total(trainable):
    output = nnx.merge(graphdef, trainable, frozen)(images)
    return losses.total_loss(output)

  grads, parts = jax.grad(total, has_aux=True)(trainable)
  yield from compare("soft_mining_loss", parts["soft_mining_loss"], ENCODER)
  yield from compare("coherence_loss", parts["coherence_loss"], ENCODER)
  yield from compare("total_loss", parts["loss"], ENCODER)
  yield from _check_named(compare, "grad/", grads, GRADIENT)
  output = model(images)
  mining = losses.soft_mining_loss(output.encoder_groups, output.decoder_groups)
  yield from compare("sm_only/loss", mining, ENCODER)
  for key in compare.reference:
    match = re.fullmatch(r"sm_(?:only|gamma(\d+))/grad_de_(\d)", key)
    if match:
      gamma = 3.0 if match[1] is None else float(match[1])
      grads = jax.grad(losses.soft_mining_loss, argnums=1)(
        output.encoder_groups, output.decoder_groups, gamma
      )
      gradient = _to_maps(grads[int(match[2])], compare.reference[key])
      yield from compare(key, gradient, GRADIENT, relative=True)


def _check_named(
  compare: Comparison, prefix: str, state: nnx.State, tolerance: float
) -> Iterator[Result]:
  """Arrays of the trainable part by their names in the original."""
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
    difference = np.max(np.abs(ours[path] - converted[path]))
    scale = max(float(np.max(np.abs(converted[path]))), 1e-12)
    label = f"{compare.path.name}: {prefix}{name}"
    compare.compared.add(prefix + name)
    yield Result(label, float(difference) / scale, tolerance, relative=True)


def check_training(compare: Comparison) -> Iterator[Result]:
  """A short training run, through the real training step.

  The run amplifies rounding: where two INPs are equally near to a patch, the
  last bit decides which one learns. A change of 1e-7 in the first parameters
  can move the losses of step 30 by 1e-3, in the original as here. So the
  trajectory is computed in float64, which stands where float32 runs scatter
  around, and in float32 during the warm-up only. If the reference left it,
  runs from parameters moved by one float32 rounding are tried; the nearest one
  is compared, and its results say so.

  Args:
    compare: Holds `batches`, `total_iters`, `warmup_iters` and what they
      lead to.

  Yields:
    The results of the nearest run.
  """
  yield from _warmup_results(compare)
  runs = []
  for seed in range(NUM_ROUNDINGS):
    with jax.enable_x64(True):
      runs.append(list(_training_results(compare, seed)))
    if all(result.ok for result in runs[-1]):
      break
  nearest = min(runs, key=lambda run: sum(not r.ok for r in run))
  note = f" (rounding {runs.index(nearest)})" if nearest is not runs[0] else ""
  for result in nearest:
    yield dataclasses.replace(result, name=result.name + note)


def _warmup_results(compare: Comparison) -> Iterator[Result]:
  """The losses of the warm-up in float32, before rounding is amplified."""
  model, _ = _load_model(compare.path)
  steps = int(compare.reference["warmup_iters"])
  history, _ = _train(compare.reference, *model_lib.split(model), steps)
  losses = np.array([float(h["loss"]) for h in history])
  reference = compare.reference["losses"][:steps]
  difference = float(np.max(np.abs(losses / reference - 1)))
  name = f"{compare.path.name}: losses of the warm-up in float32"
  yield Result(name, difference, TRAINING, relative=True)


def _training_results(compare: Comparison, seed: int) -> Iterator[Result]:
  """The training run in float64; seeds above 0 move the first parameters."""
  model, _ = _load_model(compare.path, jnp.float64)
  graphdef, trainable, frozen = model_lib.split(model)
  rng = np.random.default_rng(seed)

  def widen(x, rounding=6e-8 if seed else 0.0):
    noise = 1 + rounding * rng.standard_normal(x.shape)
    return jnp.asarray(np.asarray(x, np.float64) * noise)

  trainable = jax.tree.map(widen, trainable)
  frozen = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), frozen)
  total = int(compare.reference["total_iters"])
  history, trainable = _train(
    compare.reference, graphdef, trainable, frozen, total
  )
  for key, name, tolerance in (
    ("schedule", "learning_rate", SCHEDULE),
    ("learning_rates", "learning_rate", SCHEDULE),
    ("losses", "loss", TRAINING),
    ("coherence", "coherence_loss", TRAINING),
    ("grad_norms", "gradient_norm", NORM),
  ):
    values = np.array([float(h[name]) for h in history])
    yield from compare(key, values, tolerance, relative=True)
  yield from _check_named(compare, "final/", trainable, FINAL)


def _train(reference, graphdef, trainable, frozen, steps: int):
  """Steps of a reference run: metrics per step, parameters after the last."""
  schedule = optimizer.warm_cosine(
    int(reference["total_iters"]), int(reference["warmup_iters"])
  )
  adamw = optimizer.make_optimizer(schedule)
  step = jax.jit(
    train_step.make_train_step(graphdef, adamw, normalise=lambda images: images)
  )
  dtype = jax.tree.leaves(trainable)[0].dtype
  batches = channels_last(reference["batches"]).astype(dtype)
  state, history = (trainable, adamw.init(trainable)), []
  for t in range(steps):
    state, metrics = step(state, frozen, batches[t % len(batches)])
    history.append(metrics | {"learning_rate": schedule(float(t))})
  return history, state[0]
