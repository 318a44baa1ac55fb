"""Reads every file of a data set and records what is wrong with it."""

import collections
import concurrent.futures
import dataclasses
import hashlib
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

import numpy as np
from PIL import ExifTags, Image

from inp_former_jax.data import transforms
from inp_former_jax.data.image_files import EXTENSIONS, open_image_file
from inp_former_jax.data.inspection.published import differences, find_published
from inp_former_jax.data.masks import brightest as brightest_value
from inp_former_jax.data.pixel_limits import decoding
from inp_former_jax.data.records import DEFECTIVE, NON_ZERO, Dataset, Record

# Kinds of problems, in the order of the report.
COUNTS = "Not as published"
UNREADABLE = "Files that cannot be read"
DUPLICATE = "The same image in the training set and in another"
NO_MASK = "Defective images without a mask (image metrics only)"
MASK_SIZE = "Masks of another size than their image (width x height)"
EMPTY_MASK = "Masks without a defective pixel"
FAINT_MASK = "Masks with no pixel brighter than half (class numbers?)"
PROBLEMS = (
  *(COUNTS, UNREADABLE, DUPLICATE, NO_MASK),
  *(MASK_SIZE, EMPTY_MASK, FAINT_MASK),
)

# Endings of images that cameras and the web write, and that are not read.
_OTHER_IMAGES = (
  *(".webp", ".heic", ".heif", ".avif", ".gif", ".jfif", ".jpe", ".jp2"),
  *(".dng", ".raw", ".cr2", ".nef", ".arw"),
)
Size = tuple[int, int]  # width, height in pixels
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")
Track = Callable[[Iterable[_Item], float, str], Iterable[_Item]]


@dataclasses.dataclass(frozen=True)
class Problem:
  """A problem of a data set, which should be fixed.

  Attributes:
    kind: Kind of the problem, one of PROBLEMS.
    text: The file, relative to the root, and what was found.
  """

  kind: str
  text: str


@dataclasses.dataclass(frozen=True)
class Inspection:
  """Findings of the inspection of a data set.

  Attributes:
    dataset: The data set that was inspected.
    sizes: Category -> the number of its images of each size.
    problems: The problems, in the order of PROBLEMS and then of the records.
    unused: Folder, relative to the root -> the number of files in it that
      could be images but belong to no record; not a problem in itself.
    quick: Whether only headers were read.
    rotated: The images with an EXIF orientation, relative to the root; it is
      ignored, which is not a problem in itself.
    skipped: The image files with an ending that is not read, relative to the
      root.
  """

  dataset: Dataset
  sizes: dict[str, collections.Counter[Size]]
  problems: tuple[Problem, ...]
  unused: dict[str, int]
  quick: bool
  rotated: tuple[str, ...] = ()
  skipped: tuple[str, ...] = ()


@dataclasses.dataclass
class _Finding:
  """Findings in one record; `size` is None if the image cannot be read."""

  record: Record
  num_bytes: int = 0
  size: Size | None = None
  rotated: bool = False
  problems: list[Problem] = dataclasses.field(default_factory=list)


def inspect_dataset(
  dataset: Dataset,
  root: pathlib.Path,
  *,
  whole: bool = True,
  quick: bool = False,
  threads: int = 16,
  track: Track = lambda results, total, description: results,
) -> Inspection:
  """Reads every file of a data set, keeping one image in memory per thread.

  Args:
    dataset: The data set to inspect.
    root: The absolute path of its folder; files are named relative to it.
    whole: Whether `dataset` holds all categories of the folder. If so, its
      counts are compared with the published ones, and files that no record
      uses are searched for.
    quick: Whether to read headers only: nothing is decoded, and no files are
      compared.
    threads: The number of files that are read at the same time.
    track: A function that shows progress. It takes the results as they arrive,
      their number and a word for the work, and yields the results.

  Returns:
    The findings.
  """
  records = (
    dataset.train + dataset.validation + dataset.test + dataset.unlabelled
  )
  found = _in_threads(lambda r: _examine(r, root, quick), records, threads)
  sizes = collections.defaultdict(collections.Counter)
  problems, rotated, by_bytes = [], [], collections.defaultdict(list)
  for finding in track(found, len(records), "reading"):
    problems += finding.problems
    if finding.rotated:
      rotated.append(_shown(finding.record.paths[0], root))
    if finding.size:
      sizes[finding.record.category][finding.size] += 1
      by_bytes[finding.num_bytes].append(finding.record.image)
  problems += _missing_masks(dataset.train + dataset.test, root)
  if not quick:
    problems += _duplicates(dataset, by_bytes, root, threads, track)
  if whole:
    problems += _differences(dataset)
  return Inspection(
    dataset=dataset,
    sizes=dict(sizes),
    problems=tuple(sorted(problems, key=lambda p: PROBLEMS.index(p.kind))),
    unused=_unused(records, root) if whole else {},
    quick=quick,
    rotated=tuple(rotated),
    skipped=_skipped(root) if whole else (),
  )


def _in_threads(
  function: Callable[[_Item], _Result], items: Iterable[_Item], threads: int
) -> Iterator[_Result]:
  """Yields results in order, starting only enough to keep threads busy."""
  with concurrent.futures.ThreadPoolExecutor(threads) as pool:
    pending = collections.deque()
    try:
      for item in items:
        pending.append(pool.submit(function, item))
        if len(pending) > 4 * threads:
          yield pending.popleft().result()
      while pending:
        yield pending.popleft().result()
    finally:
      pool.shutdown(cancel_futures=True)


def _examine(record: Record, root: pathlib.Path, quick: bool) -> _Finding:
  finding = _Finding(record)
  image, *masks = record.paths
  try:
    finding.num_bytes = os.stat(image).st_size
    size, rotated = _read_header(image)
    if not quick:
      transforms.decode(image, "RGB")
    finding.size, finding.rotated = size, rotated
  except Exception as error:  # Pillow's plugins raise errors of any type
    finding.problems.append(_unreadable(image, root, error))
  for mask in masks:
    finding.problems += _examine_mask(mask, record, finding.size, root, quick)
  return finding


def _examine_mask(
  mask: pathlib.Path,
  record: Record,
  image_size: Size | None,
  root: pathlib.Path,
  quick: bool,
) -> list[Problem]:
  try:
    size, _ = _read_header(mask)
    brightest = None if quick else _brightest(mask, record.mask_values)
  except Exception as error:
    return [_unreadable(mask, root, error)]
  problems, name = [], _shown(mask, root)
  if image_size is not None and image_size != size:
    text = f"{name}: {size_text(size)}, its image {size_text(image_size)}"
    problems.append(Problem(MASK_SIZE, text))
  if brightest == 0:
    problems.append(Problem(EMPTY_MASK, name))
  elif brightest is not None and brightest < 128:
    problems.append(Problem(FAINT_MASK, f"{name}: up to {brightest} of 255"))
  return problems


def _read_header(path: pathlib.Path) -> tuple[Size, bool]:
  """Returns the size, and whether there is an EXIF orientation to apply."""
  with open_image_file(path) as image:
    return image.size, _is_rotated(image)


def _is_rotated(image: Image.Image) -> bool:
  if image.format == "TIFF":
    return False  # Pillow applies the orientation when it decodes a TIFF
  try:
    # The method that PNG files override would decode all pixels.
    exif = Image.Image.getexif(image)
    orientation = exif.get(ExifTags.Base.Orientation)
  except Exception:  # broken EXIF does no harm, and raises errors of any type
    return False
  return orientation in range(2, 9)  # 1: as stored


def _brightest(mask: pathlib.Path, values: str) -> int:
  """Returns the largest pixel in [0, 255], as `transforms` reads the mask."""
  if values == NON_ZERO:
    with open_image_file(mask) as image, decoding(image):
      stored = np.asarray(image)
    # Transparency marks nothing.
    return 255 * int((stored[..., :3] if stored.ndim == 3 else stored).any())
  return brightest_value(transforms.decode(mask, "L"))


def _unreadable(
  path: pathlib.Path, root: pathlib.Path, error: Exception
) -> Problem:
  reason = error.__cause__ or error  # a DataError wraps Pillow's error
  text = getattr(reason, "strerror", None) or str(reason)
  text = text.replace(str(path), path.name) or type(reason).__name__
  return Problem(UNREADABLE, f"{_shown(path, root)}: {text}")


def _missing_masks(
  records: Sequence[Record], root: pathlib.Path
) -> list[Problem]:
  """Returns a problem per image, or one for a category without any mask."""
  by_category = collections.defaultdict(list)
  for record in records:
    if record.label == DEFECTIVE:
      by_category[record.category].append(record)
  problems = []
  for category, defective in by_category.items():
    without = [r.image for r in defective if not r.masks]
    if len(without) == len(defective) > 1:
      texts = [f"{category}: none of its {len(defective)} has one"]
    else:
      texts = [_shown(image, root) for image in without]
    problems += [Problem(NO_MASK, text) for text in texts]
  return problems


def _duplicates(
  dataset: Dataset,
  by_bytes: dict[int, list[pathlib.Path]],
  root: pathlib.Path,
  threads: int,
  track: Track,
) -> list[Problem]:
  """Finds images of equal content among the files of equal size."""
  trained = {record.image for record in dataset.train}
  tested = {record.image for record in dataset.validation + dataset.test}
  candidates = [
    image
    for images in by_bytes.values()
    if not (trained.isdisjoint(images) or tested.isdisjoint(images))
    for image in images
    if image in trained or image in tested
  ]
  digests = _in_threads(_digest, candidates, threads)
  digests = track(digests, len(candidates), "comparing")
  by_digest = collections.defaultdict(list)
  for image, digest in zip(candidates, digests, strict=True):
    by_digest[digest].append(image)
  return [
    Problem(DUPLICATE, " = ".join(_shown(image, root) for image in same))
    for same in by_digest.values()
    if not (trained.isdisjoint(same) or tested.isdisjoint(same))
  ]


def _digest(path: pathlib.Path) -> bytes:
  with open(path, "rb") as file:
    return hashlib.file_digest(file, "sha256").digest()


def _differences(dataset: Dataset) -> list[Problem]:
  published = find_published(dataset)
  if published is None:
    return []
  return [
    Problem(COUNTS, f"{published.name}: {difference}")
    for difference in differences(dataset, published)
  ]


def _unused(records: Sequence[Record], root: pathlib.Path) -> dict[str, int]:
  used = {str(path) for record in records for path in record.paths}
  unused = {}
  for folder, inner, files in os.walk(root):
    inner[:] = sorted(name for name in inner if not name.startswith("."))
    count = sum(
      name.lower().endswith(EXTENSIONS)
      and not name.startswith(".")
      and os.path.join(folder, name) not in used
      for name in files
    )
    if count:
      unused[_shown(pathlib.Path(folder), root)] = count
  return unused


def _skipped(root: pathlib.Path) -> tuple[str, ...]:
  """Finds images that no layout reads, because of their endings."""
  return tuple(
    _shown(pathlib.Path(folder, name), root)
    for folder, inner, files in os.walk(root)
    if not inner.sort()  # walks in order
    for name in sorted(files)
    if name.lower().endswith(_OTHER_IMAGES) and not name.startswith(".")
  )


def _shown(path: pathlib.Path, root: pathlib.Path) -> str:
  """Returns a path relative to the root; unchanged if it lies elsewhere."""
  return str(path.relative_to(root) if path.is_relative_to(root) else path)


def size_text(size: Size) -> str:
  """Formats a size for people.

  Args:
    size: Width and height in pixels.

  Returns:
    The size as text, for example "1024x768".
  """
  return f"{size[0]}x{size[1]}"
