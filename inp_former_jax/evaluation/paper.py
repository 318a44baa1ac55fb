"""Results of the paper, to be shown beside those of a run with its settings.

Luo et al., CVPR 2025, arXiv 2503.02424. This file holds only numbers that are
known for certain; the paper's other settings get no row.
"""

from collections.abc import Sequence

from ml_collections import ConfigDict

from inp_former_jax.models.inp_former import NUM_PROTOTYPES
from inp_former_jax.training import losses

_METRICS = (
  "image_auroc",
  "image_ap",
  "image_f1max",
  "pixel_auroc",
  "pixel_ap",
  "pixel_f1max",
  "pixel_aupro",
)
_SIZES = {"small": "S", "base": "B", "large": "L"}
_SIZE_OF_ENCODER = {
  "dinov2reg_vit_small_14": "small",
  "dinov2reg_vit_base_14": "base",
  "dinov2reg_vit_large_14": "large",
}


def _row(*percent: float) -> dict[str, float]:
  return {
    name: round(value / 100, 4)
    for name, value in zip(_METRICS, percent, strict=False)
  }


# Multi-class, 448 -> 392: metrics by data set and size of the encoder.
_MULTI_CLASS = {
  ("mvtec", "base"): _row(99.7, 99.9, 99.2, 98.5, 71.0, 69.7, 94.9),
  ("visa", "base"): _row(98.9, 99.0, 96.6, 98.9, 51.2, 54.7, 94.4),
  ("realiad", "base"): _row(90.5, 88.1, 81.5, 99.0, 47.5, 50.3, 95.0),
  ("mvtec", "small"): _row(99.2),
  ("mvtec", "large"): _row(99.8),
}
# ViT-B on MVTec-AD: metrics by number of shots.
_FEW_SHOT = {4: _row(97.6), 2: _row(97.0), 1: _row(96.6)}
# ViT-B, one model for three data sets: metrics by data set.
_SUPER_MULTI_CLASS = {
  "mvtec": _row(99.5),
  "visa": _row(97.3),
  "realiad": _row(89.8),
}
# ViT-B, zero-shot: metrics by data set.
_ZERO_SHOT = {"mvtec": {"pixel_auroc": 0.88}, "visa": {"pixel_auroc": 0.887}}


def rows(config: ConfigDict) -> dict[str, dict[str, float]]:
  """Returns the paper's results for the settings of a run.

  Args:
    config: The config of the run.

  Returns:
    The rows by title (which begins with "paper"), each with values in [0, 1]
    by metric. There are none if the settings are not the paper's, or if the
    run has only some of the categories.
  """
  size = _encoder_size(config)
  if size is None or config.data.categories:
    return {}
  title = f"paper, ViT-{_SIZES[size]}"
  if config.data.sources:
    return _super_multi_class(config, size, title)
  data = config.data
  found = None
  if config.protocol == "zero_shot":
    found = _ZERO_SHOT.get(data.layout) if size == "base" else None
  elif config.protocol == "multi_class" and data.shots:
    if data.layout == "mvtec" and size == "base":
      found = _FEW_SHOT.get(data.shots)
  elif config.protocol == "multi_class":
    found = _MULTI_CLASS.get((data.layout, size))
  return {title: dict(found)} if found else {}


def _super_multi_class(
  config: ConfigDict, size: str, title: str
) -> dict[str, dict[str, float]]:
  layouts = [source[0] for source in config.data.sources]
  whole = all(
    len(source) < 3 or not source[2] for source in config.data.sources
  )
  if sorted(layouts) != sorted(_SUPER_MULTI_CLASS) or not whole:
    return {}
  if size != "base" or config.data.shots or config.protocol != "multi_class":
    return {}
  return {
    f"{title}, {layout}": dict(_SUPER_MULTI_CLASS[layout]) for layout in layouts
  }


def _encoder_size(config: ConfigDict) -> str | None:
  """Returns small, base or large; None unless the rest is as in the paper."""
  data, model = config.data, config.model
  expected: Sequence[tuple[object, object]] = (
    (data.resize, 448),
    (data.crop, 392),
    (data.resize_width or data.resize, 448),
    (data.crop_width or data.crop, 392),
    (data.sampling, "uniform"),
    (bool(data.tfds), False),
    (model.num_prototypes, NUM_PROTOTYPES),
    (model.use_inps, True),
    (config.loss.coherence_weight, losses.COHERENCE_WEIGHT),
    (config.loss.gamma, losses.GAMMA),
  )
  if any(found != wanted for found, wanted in expected):
    return None
  return _SIZE_OF_ENCODER.get(model.encoder)
