"""Answers for images with a trained model: scores, decisions and pictures.

python -m inp_former_jax.predict workdir/parts photo.png
python -m inp_former_jax.predict workdir/parts photos/ --out=answers \
  --save=overlay,mask
python -m inp_former_jax.predict workdir/parts --watch=incoming/ --out=answers

Files that cannot be read are listed at the end, and the rest is answered.

Exit code:
  0  all images are normal, or there is no calibration to decide by, or some are
     anomalous and --fail-on-anomaly is not given
  1  some images are anomalous, with --fail-on-anomaly
  2  nothing could be done, for example because there is no checkpoint
  3  some images could not be read
"""

import argparse
import contextlib
import dataclasses
import pathlib
import signal
import sys
from collections.abc import Callable, Iterator

from inp_former_jax import arguments
from inp_former_jax.terminal import escaped

ANOMALOUS, UNREADABLE = 1, 3  # exit codes
_LISTED = 1000  # unreadable files, at most
_PICTURES = ("overlay", "map", "mask", "contour")


@dataclasses.dataclass
class Summary:
  """What has been answered so far.

  Attributes:
    anomalous: Number of images above the threshold.
    normal: Number of images at or below it.
    undecided: Number of images that there was no threshold for.
    lowest: The lowest score.
    highest: The highest score.
    unreadable: Number of files that could not be read.
    errors: The errors of the first of them.
  """

  anomalous: int = 0
  normal: int = 0
  undecided: int = 0
  lowest: float = float("inf")
  highest: float = float("-inf")
  unreadable: int = 0
  errors: list[str] = dataclasses.field(default_factory=list)

  def add(self, answer) -> None:
    """Counts an answer."""
    self.lowest = min(self.lowest, answer.score)
    self.highest = max(self.highest, answer.score)
    if answer.is_anomalous is None:
      self.undecided += 1
    elif answer.is_anomalous:
      self.anomalous += 1
    else:
      self.normal += 1

  def add_unreadable(self, error: str) -> None:
    """Counts a file that could not be read."""
    self.unreadable += 1
    if len(self.errors) < _LISTED:
      self.errors.append(error)

  def lines(self) -> Iterator[str]:
    """Yields the summary, line by line."""
    count = self.anomalous + self.normal + self.undecided
    decided = f", {self.anomalous} anomalous and {self.normal} normal"
    decided = decided if self.anomalous + self.normal else ""
    scores = f", scores from {self.lowest:.4f} to {self.highest:.4f}"
    yield (
      f"{count} {'image' if count == 1 else 'images'} answered{decided}"
      f"{scores if count else ''}."
    )
    if self.unreadable:
      yield f"{self.unreadable} could not be read:"
      yield from (f"  {error}" for error in self.errors)
    if self.unreadable > len(self.errors):
      yield f"  and {self.unreadable - len(self.errors)} more"

  def exit_code(self, fail_on_anomaly: bool) -> int:
    """Returns the exit code, see the module."""
    if self.unreadable:
      return UNREADABLE
    return ANOMALOUS if self.anomalous and fail_on_anomaly else 0


def main(argv: list[str] | None = None) -> int:
  """Runs the command.

  Args:
    argv: Arguments of the command line; those of the process by default.

  Returns:
    The exit code, see the module.
  """
  args = _parse(argv)
  return arguments.run(lambda: _run(args), flags=("category", "scale"))


def _run(args: argparse.Namespace) -> int:
  # Imported late: importing JAX and Flax takes some seconds.
  print("Loading the model ...", file=sys.stderr, flush=True)
  from inp_former_jax import compilation_cache
  from inp_former_jax.evaluation import answer_files
  from inp_former_jax.inference import notes
  from inp_former_jax.inference.predictor import Predictor

  compilation_cache.enable()
  out = contextlib.nullcontext()
  folders = [p if p.is_dir() else p.parent for p in args.images]
  folders += [args.watch] if args.watch else []
  if args.out is not None:
    _require_folder(args.out)
  predictor = Predictor.load(
    args.workdir, **arguments.predictor_arguments(args)
  )
  for note in notes.notes(predictor, args.workdir):
    print(escaped(note), file=sys.stderr)
  if args.out is not None:
    out = answer_files.AnswerFiles(
      args.out,
      pictures=args.save,
      scale=args.scale or notes.recorded_scale(predictor, args.workdir),
      roots=folders,
      keep=args.watch is not None,
    )
  summary = Summary()
  with out as files:

    def add(answer) -> None:
      if files is not None:
        files.add(answer)
      summary.add(answer)
      if files is None or args.watch:
        print(_line(answer), flush=True)

    answer_all = _Answering(predictor, args, summary, add)
    if args.images:
      answer_all.images(args.images)
    if args.watch:
      with contextlib.suppress(KeyboardInterrupt):
        _stop_at_sigterm()
        print(
          f"Watching {args.watch}; Ctrl-C ends it.", file=sys.stderr, flush=True
        )
        answer_all.watched(args.watch, files)
  for line in summary.lines():
    print(escaped(line), file=sys.stderr)
  if files is not None:
    written = ", ".join(files.written)
    print(f"Written to {files.folder}: {written}", file=sys.stderr)
    if not {*args.save} <= {name.strip("/") for name in files.written}:
      print("Masks and contours need a calibration.", file=sys.stderr)
  return summary.exit_code(args.fail_on_anomaly)


class _Answering:
  """Answers for images, and collects the files that cannot be read."""

  def __init__(
    self, predictor, args: argparse.Namespace, summary: Summary, add: Callable
  ):
    self._predictor, self._args = predictor, args
    self._summary, self._add = summary, add
    self._out = args.out and args.out.expanduser().resolve()

  def images(self, images: list[pathlib.Path]) -> None:
    """Answers for files and folders, with a bar of progress."""
    from inp_former_jax.inference.framing import pictures

    files = [path for path in pictures.flat(images) if not self._is_own(path)]
    with arguments.progress_bar() as bar:
      task = bar.add_task("images", total=len(files))
      self._stream(files, lambda: bar.advance(task))

  def watched(self, folder: pathlib.Path, files) -> None:
    """Answers for the images that arrive in a folder, for ever."""
    from inp_former_jax.data.watching import new_images

    for paths in new_images(
      folder,
      known=lambda path: files is not None and files.has(path),
      excluded=self._is_own,
      warn=lambda text: print(escaped(text), file=sys.stderr, flush=True),
    ):
      self._stream(paths, lambda: None)

  def _is_own(self, path) -> bool:
    """Whether a file is one of the pictures that this command has written."""
    own = self._out
    return bool(own) and pathlib.Path(str(path)).resolve().is_relative_to(own)

  def _stream(self, paths: list, advance: Callable[[], None]) -> None:
    from inp_former_jax.data.errors import DataError

    def unreadable(error) -> None:
      if self._args.watch:  # it may be long until the end
        text = escaped(f"could not be read: {error}")
        print(text, file=sys.stderr, flush=True)
      self._summary.add_unreadable(str(error))
      advance()

    answers = self._predictor.stream(
      paths,
      category=self._args.category,
      on_error=lambda _, error: unreadable(error),
    )
    for answer in answers:
      try:
        self._add(answer)
      except DataError as error:
        unreadable(error)
      else:
        advance()


def _line(answer) -> str:
  from inp_former_jax.inference.decision import DECISIONS
  from inp_former_jax.terminal import printable

  return (
    f"{answer.score:.4f}  {DECISIONS[answer.is_anomalous]:<9}  "
    f"{printable(answer.source)}"
  )


def _require_folder(out: pathlib.Path) -> None:
  """Fails before the model is loaded if nothing can be written."""
  from inp_former_jax.training.checkpoints.workdirs import prepare_workdir

  prepare_workdir(out, needed=0)


def _stop_at_sigterm() -> None:
  """Ends like Ctrl-C when a service manager stops the process."""

  def stop(*_):
    raise KeyboardInterrupt

  signal.signal(signal.SIGTERM, stop)


def _parse(argv: list[str] | None) -> argparse.Namespace:
  parser = arguments.Parser("inp_former_jax.predict", __doc__ or "")
  add = parser.add_argument
  add("workdir", type=pathlib.Path, help="folder of a run")
  add(
    "images",
    nargs="*",
    type=pathlib.Path,
    help="image files and folders, which are searched with their subfolders",
  )
  add("--out", type=pathlib.Path, help="folder for tables and pictures")
  add(
    "--save",
    type=_pictures,
    default=(),
    metavar="KIND,KIND",
    help="pictures to write: overlay (the map over the image), map (float32 "
    "TIFF at the image's size), mask, contour (of the mask on the image)",
  )
  add(
    "--watch",
    type=pathlib.Path,
    metavar="FOLDER",
    help="answer for each image that arrives in the folder, until Ctrl-C; "
    "those that --out already has answers for are left out",
  )
  add(
    "--category",
    default="folder",
    help="whose thresholds to use; '' takes those of the whole model, and "
    "'folder' (default) those of the nearest folder that is named like a "
    "category",
  )
  add(
    "--fail_on_anomaly",
    action="store_true",
    help="exit with 1 if an image is anomalous",
  )
  add(
    "--scale",
    type=_scale,
    metavar="MIN,MAX",
    help="scores of the coldest and the hottest colour; default: the model's",
  )
  arguments.add_predictor_flags(parser)
  args = parser.parse_args(argv)
  if not args.images and not args.watch:
    parser.error("name images or folders, or give --watch=FOLDER")
  if args.save and args.out is None:
    parser.error("--save needs --out=FOLDER, where the pictures go")
  return args


def _pictures(text: str) -> tuple[str, ...]:
  kinds = tuple(dict.fromkeys(text.split(",")))
  unknown = [kind for kind in kinds if kind not in _PICTURES]
  if unknown:
    raise argparse.ArgumentTypeError(
      f"{unknown[0]!r} is none of {', '.join(_PICTURES)}"
    )
  return kinds


def _scale(text: str):
  from inp_former_jax.inference.colours import ColourScale

  low, high = (float(number) for number in text.split(","))
  if not low < high:
    raise argparse.ArgumentTypeError("MIN is not below MAX")
  return ColourScale(low, high)


if __name__ == "__main__":
  sys.exit(main())
