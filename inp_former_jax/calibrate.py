"""Calibrates a trained model: thresholds for images and pixels, colour scale.

python -m inp_former_jax.calibrate workdir/parts
python -m inp_former_jax.calibrate workdir/parts more_normal_parts/
python -m inp_former_jax.calibrate workdir/parts --labelled=parts --method=f1

The first command uses the normal images that the run held out, or that its
data set keeps apart as a validation split. The second one names normal images.
Either way the thresholds are those at which 5 % of normal images raise a false
alarm (--image_rate), or 0.1 % of their pixels (--pixel_rate). The third one
also uses defective images, laid out as for training, and finds the largest F1.

The result is written to calibration.json in the workdir, from which prediction,
evaluation and export take it. Use images that the model was not trained on:
it scores those that it knows too low.

Exit code: 0, or 2 if nothing could be done.
"""

import argparse
import pathlib
import sys

from inp_former_jax import arguments


def main(argv: list[str] | None = None) -> int:
  """Runs the command.

  Args:
    argv: Arguments of the command line; those of the process by default.

  Returns:
    The exit code, see the module.
  """
  args = _parse(argv)
  flags = ("method", "image_rate", "pixel_rate", "layout", "category")
  return arguments.run(lambda: _run(args), flags)


def _run(args: argparse.Namespace) -> int:
  # Imported late: importing JAX and Flax takes some seconds.
  print("Loading the model ...", file=sys.stderr, flush=True)
  from inp_former_jax import compilation_cache
  from inp_former_jax.training.checkpoints import saved_runs, workdir_lock

  compilation_cache.enable()
  workdir = args.workdir.expanduser().absolute()
  saved_runs.require_checkpoints(workdir)
  # A run that is under way writes a calibration of its own at its end.
  return workdir_lock.held(_calibrate)(args, workdir)


def _calibrate(args: argparse.Namespace, workdir: pathlib.Path) -> int:
  from inp_former_jax import thresholds
  from inp_former_jax.inference import calibrating, calibration
  from inp_former_jax.inference.predictor import Predictor

  if args.images or args.labelled:
    records = thresholds.records_of(
      args.images,
      args.labelled,
      args.layout,
      args.category,
      thresholds.categories_of(workdir)
      if args.category == thresholds.FROM_FOLDER
      else (),
    )
    images = ", ".join(
      str(path.absolute()) for path in [*args.images, *args.labelled]
    )
  else:
    records, images = thresholds.held_out(workdir), thresholds.HELD_OUT
  predictor = Predictor.load(workdir, **arguments.predictor_arguments(args))
  with arguments.progress_bar() as bar:
    found = calibrating.calibrate(
      predictor,
      records,
      method=args.method,
      image_rate=args.image_rate,
      pixel_rate=args.pixel_rate,
      per_category=args.per == "category",
      images=images,
      track=lambda answers: bar.track(
        answers, total=len(records), description="images"
      ),
    )
  calibration.write_calibration(workdir, found)
  for line in calibrating.describe(found):
    print(line)
  print(f"Written to {workdir / calibration.CALIBRATION}", file=sys.stderr)
  return 0


def _parse(argv: list[str] | None) -> argparse.Namespace:
  parser = arguments.Parser("inp_former_jax.calibrate", __doc__ or "")
  add = parser.add_argument
  add("workdir", type=pathlib.Path, help="folder of a run")
  add(
    "images",
    nargs="*",
    type=pathlib.Path,
    help="files and folders of normal images; default: those that the run held "
    "out",
  )
  add(
    "--labelled",
    action="append",
    default=[],
    type=pathlib.Path,
    metavar="ROOT",
    help="folder with a test split of normal and defective images, laid out as "
    "--layout says",
  )
  add(
    "--layout", default="folder", help="layout of --labelled; default: folder"
  )
  add(
    "--method",
    default="rate",
    help="rate (default): a false-alarm rate on normal images; f1: the largest "
    "F1 on --labelled images",
  )
  add(
    "--image_rate",
    type=float,
    default=0.05,
    help="share of normal images with a false alarm; default: 0.05",
  )
  add(
    "--pixel_rate",
    type=float,
    default=0.001,
    help="share of the pixels of normal images; default: 0.001",
  )
  add(
    "--per",
    choices=("category", "model"),
    default="category",
    help="whether each category gets thresholds of its own too (default)",
  )
  add(
    "--category",
    default="",
    help="category of IMAGES; 'folder' takes the nearest folder that is named "
    "like a category of the run",
  )
  arguments.add_predictor_flags(parser)
  return parser.parse_args(argv)


if __name__ == "__main__":
  sys.exit(main())
