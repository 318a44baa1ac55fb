"""Compares this implementation with arrays and checkpoints of the original.

python -m weights_conversion.verify DIR [--encoder FILE] [--images DIR]
python -m weights_conversion.verify model.pth --images FILE.npz
python -m weights_conversion.verify model.pth --images DIR --resize=N --crop=N
python -m weights_conversion.verify WORKDIR --images DIR

The first folder holds arrays of the original implementation, of any seed and
size, in `.npz` files whose names say what they hold. Every known array is
compared, and one line for each reports how far it is off. With a folder of
images, a model prints the score of each.
"""

import argparse
import pathlib
import sys

import jax

from inp_former_jax import compilation_cache
from inp_former_jax.data.transforms import Preprocessing
from inp_former_jax.field_names import with_field_names
from inp_former_jax.inference import trained
from inp_former_jax.terminal import escaped
from inp_former_jax.training.checkpoints import place
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
  """Scores images with a model, or compares it with a reference file."""
  if args.images is None:
    reference = "" if args.path.is_dir() else ", or a .npz file"
    raise ValueError(
      f"{args.path} needs --images: a folder of images{reference}."
    )
  with jax.default_matmul_precision("highest"):
    if args.images.is_file():
      if args.path.is_dir():
        raise ValueError(
          f"{args.path} is a workdir, which scores folders of images, but "
          f"{args.images} is a file. To compare the model with reference "
          "arrays, export it: python -m weights_conversion.inp_former to_torch."
        )
      model = image_scores.converted(args.path)
      return image_scores.check_reference(model, args.path, args.images)
    if not args.images.is_dir():
      raise FileNotFoundError(f"{args.images} does not exist.")
    model, preprocessing = _model_and_sizes(args)
    for score in image_scores.image_scores(model, args.images, preprocessing):
      print(f"{score.name:<66} score {score.value:.6f}")
  return None


def _model_and_sizes(
  args: argparse.Namespace,
) -> tuple[trained.TrainedModel, Preprocessing]:
  """Loads a model and finds the sizes of the images it was trained on."""
  given = _given_sizes(args)
  if args.path.is_file():
    if given is None:
      raise _unknown_sizes(args.path)
    return image_scores.converted(args.path), given
  model = trained.load(args.path)
  recorded = model.preprocessing
  if recorded and given and recorded != given:
    raise ValueError(
      f"{args.path} was trained at another size than --resize={args.resize} "
      f"--crop={args.crop}: its images were resized to {recorded.resize} and "
      f"cropped to {recorded.crop} (height, width). Leave both options out."
    )
  sizes = recorded or given
  if sizes is None:
    raise _unknown_sizes(args.path)
  return model, sizes


def _unknown_sizes(path: pathlib.Path) -> ValueError:
  return ValueError(
    f"{path} does not record the size it was trained at: add --resize=448 "
    "--crop=392 (the paper's), or those of its training."
  )


def _given_sizes(args: argparse.Namespace) -> Preprocessing | None:
  """Returns the sizes of the command line; None if there are none."""
  if args.resize is None and args.crop is None:
    return None
  if args.resize is None or args.crop is None:
    missing = "--resize" if args.resize is None else "--crop"
    raise ValueError(f"--resize and --crop belong together: add {missing}.")
  return Preprocessing.from_sides(args.resize, args.crop)


def main(argv: list[str] | None = None) -> int:
  """Runs the command, which prints one line per array.

  Args:
    argv: Arguments of the command line; by default the process's.

  Returns:
    The exit code: 0 if all arrays agree, or if images were only scored; else 1.
  """
  parser = argparse.ArgumentParser(
    prog="python -m weights_conversion.verify",
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument(
    "path",
    type=pathlib.Path,
    help="folder of reference arrays, an official INP-Former checkpoint, or "
    "the workdir of a run",
  )
  parser.add_argument(
    "--encoder", type=pathlib.Path, help="weights of the real encoder"
  )
  parser.add_argument(
    "--images",
    type=pathlib.Path,
    help="root of the real images; for a checkpoint or a workdir: a folder of "
    "images to score; for a checkpoint also a .npz with `image` and reference "
    "arrays",
  )
  parser.add_argument(
    "--resize",
    type=int,
    help="side in pixels that the images to score are resized to, as in the "
    "model's training; a run's workdir records it",
  )
  parser.add_argument(
    "--crop", type=int, help="side of their centre crop in pixels, likewise"
  )
  args = parser.parse_args(argv)
  compilation_cache.enable()
  try:
    is_workdir = place.of_workdir(args.path).is_dir()
    is_model = args.path.is_file() or is_workdir
    results = _report_model(args) if is_model else _report_folder(args)
  except (OSError, ValueError, ImportError, RuntimeError) as error:
    print(f"error: {escaped(with_field_names(str(error)))}", file=sys.stderr)
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
