"""Runs this implementation against a folder of reference arrays.

python -m weights_conversion.verify DIR [--encoder FILE] [--images DIR]

The folder holds arrays of the original implementation, of any seed and size,
in `.npz` files by the names below. Every array that this knows is compared;
one line says how far it is off.
"""

import argparse
import functools
import pathlib
import re
import sys
from collections.abc import Callable, Iterator

import jax

from weights_conversion import component_checks, encoder_checks, model_checks
from weights_conversion.reference import Comparison, Result

_CHECKS: dict[str, Callable[[Comparison], Iterator[Result]]] = {
  r"\w+_forward": model_checks.check_forward,
  r"\w+_losses": model_checks.check_losses,
  r"\w+_training": model_checks.check_training,
  r"stable_adamw": component_checks.check_optimizer,
  r"preprocessing": component_checks.check_preprocessing,
  r"metrics": component_checks.check_metrics,
}


def verify(
  folder: pathlib.Path,
  encoder: pathlib.Path | None = None,
  images: pathlib.Path | None = None,
) -> dict[str, list[Result] | None]:
  """Compares everything known in a folder of reference arrays.

  Args:
    folder: Holds `*_params.npz` with `*_forward.npz`, `*_losses.npz` and
      `*_training.npz`, `stable_adamw.npz`, `preprocessing.npz`,
      `metrics.npz` and `real_*_features.npz`, any of them.
    encoder: Weights file for the features of a real encoder.
    images: Root of the image files that those features name.

  Returns:
    File name -> a result per array, computed in float32 at the highest
    precision; None for a file of no known kind, or one that needs an encoder
    that was not given. Files of parameters are inputs, and not among them.

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
  results = {}
  with jax.default_matmul_precision("highest"):
    for path in sorted(folder.glob("*.npz")):
      if path.stem.endswith("_params"):
        continue
      found = [c for p, c in checks.items() if re.fullmatch(p, path.stem)]
      results[path.name] = list(found[0](Comparison(path))) if found else None
  return results


def main(argv: list[str] | None = None) -> int:
  """Prints one line per array; returns 1 if any is off or none was found."""
  parser = argparse.ArgumentParser(
    prog="python -m weights_conversion.verify",
    description="Compares this implementation with reference arrays.",
  )
  parser.add_argument("folder", type=pathlib.Path)
  parser.add_argument(
    "--encoder", type=pathlib.Path, help="weights of the real encoder"
  )
  parser.add_argument(
    "--images", type=pathlib.Path, help="root of the real images"
  )
  args = parser.parse_args(argv)
  try:
    files = verify(args.folder, args.encoder, args.images)
  except (OSError, ValueError) as error:
    print(f"error: {error}", file=sys.stderr)
    return 1
  for name, results in files.items():
    if results is None:
      real = name.startswith("real_")
      why = "needs --encoder FILE" if real else "not known"
      print(f"{name}: not checked ({why})")
  results = [r for results in files.values() for r in results or ()]
  for result in results:
    print(result)
  failures = sum(not result.ok for result in results)
  print(f"{len(results)} arrays checked, {failures} failures")
  if not results:
    print(f"error: no reference array in {args.folder}", file=sys.stderr)
  return int(failures > 0 or not results)


if __name__ == "__main__":
  sys.exit(main())
