"""INP-Former in JAX: one model that finds defects on many products.

    import inp_former_jax as inp

    config = inp.load_config("demo")  # or "folder", for your own images
    inp.train_and_evaluate(config, "workdir/demo")
    predictor = inp.Predictor.load("workdir/demo")

Whole runs:
  load_config          a config by name, path, or of a workdir; or ConfigError
  train_and_evaluate   a config and a workdir -> a trained model, its metrics
  evaluate_checkpoint  the metrics of the newest checkpoint of a workdir
  Predictor            a workdir -> answers for images: score, decision, map
  load_model           a workdir -> a TrainedModel, which scores batches

Parts, for code of your own (examples/custom_training.py puts them together):
  create_model, INPFormer, split       the model, a Flax NNX module
  load_encoder, ENCODERS               a pretrained encoder by its name
  losses                               soft mining loss and coherence loss
  make_optimizer, warm_cosine          StableAdamW on optax, and its schedule
  make_train_step                      one step of training, to be jitted
  scoring                              distances -> anomaly maps -> scores
  metrics                              AUROC, AP, F1max and AUPRO
  read_layout, load_image, normalise, Preprocessing    images, as arrays

Everything is imported when it is first used.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
  from inp_former_jax.config_files import ConfigError, load_config
  from inp_former_jax.data.layouts.registry import read_layout
  from inp_former_jax.data.transforms import (
    Preprocessing,
    load_image,
    normalise,
  )
  from inp_former_jax.evaluation import metrics
  from inp_former_jax.inference import scoring
  from inp_former_jax.inference.predictor import Predictor
  from inp_former_jax.inference.trained import TrainedModel
  from inp_former_jax.inference.trained import load as load_model
  from inp_former_jax.models.inp_former import INPFormer, split
  from inp_former_jax.protocols import evaluate_checkpoint, train_and_evaluate
  from inp_former_jax.training import losses
  from inp_former_jax.training.model_state import create_model
  from inp_former_jax.training.optimizer import make_optimizer, warm_cosine
  from inp_former_jax.training.train_step import make_train_step
  from inp_former_jax.weights.encoders import ENCODERS
  from inp_former_jax.weights.pretrained import load_encoder

__version__ = "0.1.0"

# The module of each name; module:name where it has another name there.
_EXPORTS = {
  "ConfigError": "config_files",
  "ENCODERS": "weights.encoders",
  "INPFormer": "models.inp_former",
  "Predictor": "inference.predictor",
  "Preprocessing": "data.transforms",
  "TrainedModel": "inference.trained",
  "create_model": "training.model_state",
  "evaluate_checkpoint": "protocols",
  "load_config": "config_files",
  "load_encoder": "weights.pretrained",
  "load_image": "data.transforms",
  "load_model": "inference.trained:load",
  "losses": "training.losses:",
  "make_optimizer": "training.optimizer",
  "make_train_step": "training.train_step",
  "metrics": "evaluation.metrics:",
  "normalise": "data.transforms",
  "read_layout": "data.layouts.registry",
  "scoring": "inference.scoring:",
  "split": "models.inp_former",
  "train_and_evaluate": "protocols",
  "warm_cosine": "training.optimizer",
}
__all__ = [
  "ConfigError",
  "ENCODERS",
  "INPFormer",
  "Predictor",
  "Preprocessing",
  "TrainedModel",
  "create_model",
  "evaluate_checkpoint",
  "load_config",
  "load_encoder",
  "load_image",
  "load_model",
  "losses",
  "make_optimizer",
  "make_train_step",
  "metrics",
  "normalise",
  "read_layout",
  "scoring",
  "split",
  "train_and_evaluate",
  "warm_cosine",
]


def __getattr__(name: str):
  """Imports a name when it is first used; called once for each (PEP 562)."""
  if name not in _EXPORTS:
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
  module, colon, attribute = _EXPORTS[name].partition(":")
  value = importlib.import_module(f"{__name__}.{module}")
  if attribute or not colon:
    value = getattr(value, attribute or name)
  globals()[name] = value
  return value


def __dir__() -> list[str]:
  """Lists all names, including those that are imported lazily."""
  return sorted({*globals(), *__all__})
