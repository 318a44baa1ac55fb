"""Runs this implementation against a folder of reference arrays.

python -m weights_conversion.verify DIR [--encoder FILE] [--images DIR]
python -m weights_conversion.verify model.pth --images DIR_OR_NPZ

The folder holds arrays of the original implementation, of any seed and size,
in `.npz` files by the names below. Every array that this knows is compared;
one line says how far it is off.
"""

import argparse
import dataclasses
import functools
import pathlib
import re
import sys
from collections.abc import Callable, Iterator, Mapping

import jax

from inp_former_jax.data import transforms
from weights_conversion import (
  component_checks,
  encoder_checks,
  model_checks,
  model_scores,
)
from weights_conversion.reference import Comparison, Result

Check = Callable[[Comparison], Iterator[Result]]

_CHECKS: dict[str, Check] = {
  r"\w+_forward": model_checks.check_forward,
  r"\w+_losses": model_checks.check_losses,
  r"\w+_training": model_checks.check_training,
  r"stable_adamw": component_checks.check_optimizer,
  r"preprocessing": component_checks.check_preprocessing,
  r"few_shot_augmentations": component_checks.check_augmentations,
  r"metrics": component_checks.check_metrics,
}


# Keys that are inputs of a check, not results to compare.
_INPUTS = (
  r"image|image_\d+|image_\d+_mean|files|batches|(total|warmup)_iters|lr|eps"
  r"|weight_decay|b[12]|init_\d+|grad_\d+_\d+|resize|crop|mask_\d+"
  r"|anomaly_maps|masks|labels|image_scores"
)


@dataclasses.dataclass(frozen=True)
class FileReport:
  """What was compared of one file.

  Attributes:
    results: One per array.
    left_out: Arrays that were not compared, for none of the checks knows
      them; or all, for a reason.
    reason: Why the whole file was left out; empty if it was not.
  """

  results: tuple[Result, ...]
  left_out: tuple[str, ...]
  reason: str = ""


def verify(
  folder: pathlib.Path,
  encoder: pathlib.Path | None = None,
  images: pathlib.Path | None = None,
) -> dict[str, FileReport]:
  """Compares everything known in a folder of reference arrays.

  Args:
    folder: Holds `*_params.npz` with `*_forward.npz`, `*_losses.npz` and
      `*_training.npz`, `stable_adamw.npz`, `preprocessing.npz`,
      `few_shot_augmentations.npz`, `metrics.npz` and `real_*_features.npz`,
      any of them.
    encoder: Weights file for the features of a real encoder.
    images: Root of the image files that those features name.

  Returns:
    File name -> a result per array, computed in float32 at the highest
    precision. Files of parameters are inputs, and not among them.

  Raises:
    FileNotFoundError: The folder, or a file that another needs, is missing.
    ValueError: A file cannot be read.
  """
  if not folder.is_dir():
    raise FileNotFoundError(f"{folder} is not a folder.")
  checks = dict(_CHECKS)
  if encoder:
    checks[r"real_\w+_features"] = functools.partial(
      encoder_checks.check_real_features, encoder=encoder, images=images
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


def _report_folder(args: argparse.Namespace) -> list[Result]:
  """Checks a folder of reference arrays; says what was not compared."""
  reports = verify(args.path, args.encoder, args.images)
  for name, report in reports.items():
    if report.reason:
      print(f"{name}: not compared ({report.reason})")
    elif report.left_out:
      print(f"{name}: not compared: {', '.join(report.left_out)}")
  return [r for report in reports.values() for r in report.results]


def _report_model(args: argparse.Namespace) -> list[Result] | None:
  """Scores images with a converted checkpoint, or checks a reference file."""
  if args.images is None:
    raise ValueError(f"{args.path} needs --images: a folder, or a .npz file.")
  with jax.default_matmul_precision("highest"):
    model = model_scores.converted(args.path)
    if args.images.is_file():
      return model_scores.check_reference(model, args.path, args.images)
    preprocessing = transforms.Preprocessing(
      (args.resize, args.resize), (args.crop, args.crop)
    )
    for score in model_scores.image_scores(model, args.images, preprocessing):
      print(f"{score.name:<66} score {score.value:.6f}")
  return None


def main(argv: list[str] | None = None) -> int:
  """Prints one line per array; returns 1 if any is off or none was found."""
  parser = argparse.ArgumentParser(
    prog="python -m weights_conversion.verify",
    description="Compares this implementation with reference arrays.",
  )
  parser.add_argument(
    "path",
    type=pathlib.Path,
    help="folder of reference arrays, or an official INP-Former checkpoint",
  )
  parser.add_argument(
    "--encoder", type=pathlib.Path, help="weights of the real encoder"
  )
  parser.add_argument(
    "--images",
    type=pathlib.Path,
    help="root of the real images; for a checkpoint: a folder of images to "
    "score, or a .npz with `image` and reference arrays",
  )
  parser.add_argument("--resize", type=int, default=448, help="pixels")
  parser.add_argument("--crop", type=int, default=392, help="pixels")
  args = parser.parse_args(argv)
  try:
    report = _report_model if args.path.is_file() else _report_folder
    results = report(args)
  except (OSError, ValueError, ImportError, RuntimeError) as error:
    print(f"error: {error}", file=sys.stderr)
    return 1
  if results is None:  # scores only
    return 0
  for result in results:
    print(result)
  failures = sum(not result.ok for result in results)
  print(f"{len(results)} arrays checked, {failures} failures")
  if not results:
    print(f"error: no reference array in {args.path}", file=sys.stderr)
  return int(failures > 0 or not results)


if __name__ == "__main__":
  sys.exit(main())
