"""The function that is exported: from images to everything a user is told.

It is the prediction function of all other uses, followed by the thresholds.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from inp_former_jax.inference.decision import Thresholds
from inp_former_jax.inference.predict_step import Prediction, predict_function
from inp_former_jax.inference.trained import TrainedModel

IMAGES = "images"  # the name of the input
SCORE, MAP = "score", "map"
NORMALISED, DECISION, MASK = "normalised", "decision", "mask"
# Thresholds by name, each a float32 scalar.
THRESHOLDS = ("image", "pixel", "typical")

Answers = dict[str, Any]


def answers(prediction: Prediction, thresholds: Thresholds | None) -> Answers:
  """Puts maps, scores and what follows from the thresholds under their names.

  Args:
    prediction: Anomaly maps and scores of B images.
    thresholds: The thresholds; None if the model is not calibrated.

  Returns:
    "score" (B,) and "map" (B, S, S), float32. With thresholds also
    "normalised" (B,) float32, "decision" (B,) bool and "mask" (B, S, S) bool.
  """
  score, anomaly_map = prediction.image_score, prediction.anomaly_map
  result = {SCORE: score, MAP: anomaly_map}
  if thresholds is not None:
    result[NORMALISED] = thresholds.normalised(score)
    result[DECISION] = thresholds.is_anomalous(score)
    result[MASK] = thresholds.mask(anomaly_map)
  return result


def output_specs(
  model: TrainedModel, calibrated: bool
) -> dict[str, tuple[str, tuple[int, ...]]]:
  """Returns dtype and shape of every output, without the batch.

  Args:
    model: The model.
    calibrated: Whether there are thresholds.
  """
  maps = (model.map_size, model.map_size)
  specs: dict[str, tuple[str, tuple[int, ...]]]
  specs = {SCORE: ("float32", ()), MAP: ("float32", maps)}
  if calibrated:
    specs[NORMALISED] = ("float32", ())
    specs[DECISION] = ("bool", ())
    specs[MASK] = ("bool", maps)
  return specs


def parameters(model: TrainedModel) -> dict[str, np.ndarray]:
  """Returns all parameters of a model on the host.

  Args:
    model: The model.

  Returns:
    The arrays by name, such as "encoder.blocks.0.norm1.scale", in the order in
    which `answer_function` expects them.
  """
  named, _ = _flatten(model)
  return {name: np.asarray(jax.device_get(value)) for name, value in named}


def answer_function(
  model: TrainedModel,
) -> Callable[..., Answers]:
  """Builds the function to export.

  Args:
    model: The model. Of its parameters only the structure is used.

  Returns:
    A function (parameters, images) -> answers, or
    (parameters, thresholds, images) -> answers. Parameters are those of
    `parameters`, thresholds a dict of THRESHOLDS, images uint8 (B, H, W, 3).
  """
  named, structure = _flatten(model)
  names = [name for name, _ in named]
  predict = predict_function(
    model.graphdef,
    patch_size=model.settings.spec.patch_size,
    size=model.map_size,
    top_fraction=model.top_fraction,
    zero_shot=model.zero_shot,
  )

  def answer(parameters: Mapping[str, jax.Array], *rest: Any) -> Answers:
    *thresholds, images = rest
    values = [parameters[name] for name in names]
    trainable, frozen = jax.tree.unflatten(structure, values)
    given = Thresholds(**thresholds[0]) if thresholds else None
    return answers(predict(trainable, frozen, images), given)

  return answer


def _flatten(model: TrainedModel) -> tuple[list[tuple[str, Any]], Any]:
  """Returns the parameters with their names, and how to put them together."""
  both = (model.trainable, model.frozen)
  leaves, structure = jax.tree_util.tree_flatten_with_path(both)
  named = []
  for (_, *path), value in leaves:  # the first key says which of the two
    name = jax.tree_util.keystr(tuple(path), simple=True, separator=".")
    named.append((name.removesuffix(".value"), value))
  return named, structure
