"""Compares this implementation with a folder of reference arrays.

python -m weights_conversion.verify DIR [--encoder FILE] [--images DIR]
python -m weights_conversion.verify model.pth --images DIR_OR_NPZ

The folder holds arrays of the original implementation, of any seed and size, in
`.npz` files whose names say what they hold. Every known array is compared, and
one line for each reports how far it is off.
"""

import argparse
import pathlib
import sys

import jax

from inp_former_jax.data import transforms
from weights_conversion.verification import image_scores
from weights_conversion.verification.comparison import Result
from weights_conversion.verification.reference_folder import verify


def _report_folder(args: argparse.Namespace) -> list[Result]:
  """Checks a folder of reference arrays; reports what was not compared."""
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
    model = image_scores.converted(args.path)
    if args.images.is_file():
      return image_scores.check_reference(model, args.path, args.images)
    preprocessing = transforms.Preprocessing(
      (args.resize, args.resize), (args.crop, args.crop)
    )
    for score in image_scores.image_scores(model, args.images, preprocessing):
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
