"""Exports a trained model to files that answer without this package.

python -m inp_former_jax.export WORKDIR OUT --format=onnx

OUT becomes a folder with the model and `model.json`, which says how images are
prepared and what the answers mean. It appears only if the exported model, when
it is loaded again, answers as the checkpoint does: on the run's test images, or
on those of --images.

Exit code: 0 if the model was exported, 1 if it answers differently, 2 if
something is wrong with the input.
"""

import argparse
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from inp_former_jax import (
  arguments,
  compilation_cache,
  config_files,
  experiment,
  sharding,
)
from inp_former_jax.data.errors import DataError
from inp_former_jax.data.records import NORMAL, Record
from inp_former_jax.data.transforms import Preprocessing
from inp_former_jax.exporting import exported, runtimes, samples
from inp_former_jax.exporting.errors import DifferenceError, ExportError
from inp_former_jax.field_names import with_flag_names
from inp_former_jax.inference import trained
from inp_former_jax.inference.calibration import (
  ALL,
  Calibration,
  find_calibration,
)
from inp_former_jax.terminal import escaped
from inp_former_jax.training.checkpoints import saved_runs
from inp_former_jax.training.progress import announce

# Compared images by default: a float32 model is either right or wrong, but a
# reduced precision is judged by its AUROC.
_COMPARED, _COMPARED_REDUCED = 32, 512
_CALIBRATED = 64  # images that int8 adapts to
_FLAGS = (
  "category",
  "crop",
  "encoder_weights",
  "format",
  "images",
  "precision",
  "resize",
  "zero_shot",
)

Items = Sequence[pathlib.Path] | Sequence[Record]


def main(argv: list[str] | None = None) -> int:
  """Runs the command.

  Args:
    argv: Arguments of the command line; those of the process by default.

  Returns:
    The exit code: 0, 1 or 2, see the module.
  """
  args = _parser().parse_args(argv)
  compilation_cache.enable()
  return arguments.run(lambda: _run(args), _FLAGS)


def _run(args: argparse.Namespace) -> int:
  try:
    _export(args)
  except DifferenceError as error:
    text = with_flag_names(str(error), _FLAGS)
    print(f"error: {escaped(text)}", file=sys.stderr)
    return 1
  return 0


def _export(args: argparse.Namespace) -> None:
  workdir = args.workdir.expanduser().absolute()
  out = args.out.expanduser().absolute()
  exported.require_replaceable(out)
  _, identity = saved_runs.read_identity(workdir)
  announce(f"Loading the newest checkpoint of {workdir} ...")
  model = trained.load(
    workdir,
    sharding.single_device_mesh(),
    expected=_expected(args),
    encoder_weights=args.encoder_weights,
    dtype=exported.FLOAT32,
    zero_shot=args.zero_shot,
  )
  sizes = exported.require_exportable(model, args.format, args.precision)
  calibration = find_calibration(workdir, model.step, model.options)
  exported.thresholds_of(calibration, args.category)
  compared, adapted = _find_images(args, workdir)
  announce(f"Exporting step {model.step}, comparing on {len(compared)} images")
  content, comparisons = exported.export_model(
    model,
    out,
    format=args.format,
    samples=samples.load_samples(compared, sizes),
    identity=identity,
    calibration=calibration,
    category=args.category,
    precision=args.precision,
    calibration_images=_adapted_images(args, adapted, sizes),
  )
  for comparison in comparisons:
    print(f"Compared on {comparison.images} images. {comparison}")
  _print_summary(args, out, content, calibration)


def _print_summary(
  args: argparse.Namespace,
  out: pathlib.Path,
  content: Mapping[str, Any],
  calibration: Calibration | None,
) -> None:
  size = sum(file["bytes"] for file in content["files"].values()) / 1e6
  names = ", ".join([*content["files"], "model.json"])
  print(f"Exported to {out}: {names} ({args.precision}, {size:.1f} MB).")
  if calibration is None:
    print(
      "The model is not calibrated: it gives maps and scores, but no "
      "decisions. Calibrate it and export it again: python -m "
      f"inp_former_jax.calibrate {args.workdir} IMAGES..."
    )


def _expected(args: argparse.Namespace) -> dict[str, Any]:
  """Returns the sizes of a checkpoint that does not know them itself."""
  sizes = {"resize": args.resize, "crop": args.crop}
  return {"data": {k: v for k, v in sizes.items() if v is not None}}


def _find_images(
  args: argparse.Namespace, workdir: pathlib.Path
) -> tuple[Items, Items]:
  """Finds the images to compare on, and those that int8 adapts to."""
  most = args.max_images
  if most is None:
    is_float = args.precision == exported.FLOAT32
    most = _COMPARED if is_float else _COMPARED_REDUCED
  if args.images:
    files = samples.find_images(args.images)
    items = samples.with_records(files, _labelled(workdir))
    normal = [
      item
      for item in items
      if not isinstance(item, Record) or item.label == NORMAL
    ]
  else:
    items, normal = _images_of_run(workdir)
  return samples.spread(items, most), samples.spread(normal, _CALIBRATED)


def _labelled(workdir: pathlib.Path) -> Sequence[Record]:
  """Returns the run's test records; none if its data set is elsewhere."""
  try:
    config = config_files.read_recorded(workdir / config_files.RECORDED)
    return experiment.read_dataset(config, workdir).test
  except (config_files.ConfigError, DataError):
    return ()


def _images_of_run(workdir: pathlib.Path) -> tuple[Items, Items]:
  """Returns the test records of the run, and its training records."""
  try:
    config = config_files.read_recorded(workdir / config_files.RECORDED)
    dataset = experiment.read_dataset(config, workdir)
  except (config_files.ConfigError, DataError) as error:
    raise ExportError(
      "The exported model is compared with its checkpoint on real images, and "
      f"those of the run cannot be found. Give `images`. ({error})"
    ) from error
  normal = [r for r in dataset.train if r.label == NORMAL]
  return dataset.test_by_category() or dataset.train, normal


def _adapted_images(
  args: argparse.Namespace, items: Items, sizes: Preprocessing
) -> Any:
  if args.precision != exported.INT8 or not items:
    return None
  return samples.load_samples(items, sizes).images


def _parser() -> argparse.ArgumentParser:
  parser = arguments.Parser("inp_former_jax.export", __doc__ or "")
  parser.add_argument(
    "workdir", type=pathlib.Path, help="folder of a run or converted checkpoint"
  )
  parser.add_argument(
    "out", type=pathlib.Path, help="folder to write; replaces an export in it"
  )
  parser.add_argument(
    "--format", required=True, choices=runtimes.FORMATS, help="what to write"
  )
  parser.add_argument(
    "--precision",
    choices=exported.PRECISIONS,
    default=exported.FLOAT32,
    help="what the model computes in; float16 and int8 are for onnx "
    "(default: %(default)s)",
  )
  parser.add_argument(
    "--images",
    type=pathlib.Path,
    nargs="+",
    default=[],
    metavar="FOLDER",
    help="images to compare on, and for int8 to adapt to (default: the run's "
    "test images, and its training images)",
  )
  parser.add_argument(
    "--max_images",
    type=_count,
    metavar="N",
    help=f"images to compare on at most, 0 for all (default: {_COMPARED}; "
    f"float16 and int8: {_COMPARED_REDUCED})",
  )
  parser.add_argument(
    "--category",
    default=ALL,
    help="use this category's thresholds (default: the whole model's)",
  )
  parser.add_argument(
    "--zero_shot",
    action="store_true",
    help="score patches by their distance to the nearest INP",
  )
  parser.add_argument(
    "--encoder_weights",
    help="the encoder's weights (default: where the run found them)",
  )
  for name in ("resize", "crop"):
    parser.add_argument(
      f"--{name}",
      type=_count,
      metavar="PIXELS",
      help="for a converted checkpoint, which does not know it",
    )
  return parser


def _count(text: str) -> int:
  number = int(text)
  if number < 0:
    raise argparse.ArgumentTypeError(f"{number} is below 0")
  return number


if __name__ == "__main__":
  sys.exit(main())
