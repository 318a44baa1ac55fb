"""Compares this implementation with a whole folder of reference arrays."""

import dataclasses
import functools
import pathlib
import re
from collections.abc import Callable, Iterator, Mapping

import jax

from weights_conversion.verification.comparison import Comparison, Result
from weights_conversion.verification.components import (
  check_augmentations,
  check_metrics,
  check_optimizer,
  check_preprocessing,
)
from weights_conversion.verification.encoder import check_real_features
from weights_conversion.verification.model import check_forward, check_losses
from weights_conversion.verification.training_run import check_training

Check = Callable[[Comparison], Iterator[Result]]

_CHECKS: dict[str, Check] = {
  r"\w+_forward": check_forward,
  r"\w+_losses": check_losses,
  r"\w+_training": check_training,
  r"stable_adamw": check_optimizer,
  r"preprocessing": check_preprocessing,
  r"few_shot_augmentations": check_augmentations,
  r"metrics": check_metrics,
}


# Keys of arrays that are inputs of a check, and not results to compare.
_INPUTS = (
  r"image|image_\d+|image_\d+_mean|files|batches|(total|warmup)_iters|lr|eps"
  r"|weight_decay|b[12]|init_\d+|grad_\d+_\d+|resize|crop|mask_\d+"
  r"|anomaly_maps|masks|labels|image_scores"
)


@dataclasses.dataclass(frozen=True)
class FileReport:
  """Report on the comparison with one file.

  Attributes:
    results: The results, one per array.
    left_out: Keys of the arrays that were not compared, because no check knows
      them.
    reason: Reason why the whole file was left out; empty if it was not.
  """

  results: tuple[Result, ...]
  left_out: tuple[str, ...]
  reason: str = ""


def verify(
  folder: pathlib.Path,
  encoder: pathlib.Path | None = None,
  images: pathlib.Path | None = None,
) -> dict[str, FileReport]:
  """Compares with every known file in a folder of reference arrays.

  Args:
    folder: Folder with any of the files `*_forward.npz`, `*_losses.npz` and
      `*_training.npz` (with their `*_params.npz`), `stable_adamw.npz`,
      `preprocessing.npz`, `few_shot_augmentations.npz`, `metrics.npz` and
      `real_*_features.npz`.
    encoder: File of weights for the features of a real encoder.
    images: Root of the image files that those features name.

  Returns:
    The report on each file by the file's name, computed in float32 at the
    highest precision. Files of parameters are inputs and get no report.

  Raises:
    FileNotFoundError: If the folder, or a file that another needs, is missing.
    ValueError: If a file cannot be read.
  """
  if not folder.is_dir():
    raise FileNotFoundError(f"{folder} is not a folder.")
  checks = dict(_CHECKS)
  if encoder:
    checks[r"real_\w+_features"] = functools.partial(
      check_real_features, encoder=encoder, images=images
    )
  reports = {}
  with jax.default_matmul_precision("highest"):
    for path in sorted(folder.glob("*.npz")):
      if not path.stem.endswith("_params"):
        reports[path.name] = _check_file(path, checks)
  return reports


def _check_file(path: pathlib.Path, checks: Mapping[str, Check]) -> FileReport:
  found = [
    c for pattern, c in checks.items() if re.fullmatch(pattern, path.stem)
  ]
  if not found:
    real = path.stem.startswith("real_")
    return FileReport((), (), "needs --encoder FILE" if real else "not known")
  compare = Comparison(path)
  results = tuple(found[0](compare))
  left_out = tuple(
    key
    for key in compare.reference
    if key not in compare.compared and not re.fullmatch(_INPUTS, key)
  )
  return FileReport(results, left_out)
