"""Writes answers to files: a table, a line of JSON each, and pictures."""

import csv
import json
import os
import pathlib
from collections.abc import Collection

import numpy as np
from PIL import Image

from inp_former_jax.atomic import replacing
from inp_former_jax.data import transforms
from inp_former_jax.data.errors import DataError
from inp_former_jax.data.names import path_within
from inp_former_jax.evaluation import figures
from inp_former_jax.inference.answer import Answer
from inp_former_jax.inference.colours import ColourScale
from inp_former_jax.inference.decision import DECISIONS

CSV, JSONL = "predictions.csv", "predictions.jsonl"
OVERLAY, MAP, MASK, CONTOUR = "overlay", "map", "mask", "contour"
PICTURES = (OVERLAY, MAP, MASK, CONTOUR)
_NEED_CALIBRATION = (MASK, CONTOUR)
COLUMNS = (
  *("source", "category", "score", "normalised", "decision", "threshold"),
)


def row(answer: Answer) -> dict[str, str | float | None]:
  """Returns an answer as the values of COLUMNS.

  Args:
    answer: The answer.
  """
  thresholds = answer.thresholds
  return {
    "source": str(answer.source),
    "category": answer.category,
    "score": answer.score,
    "normalised": answer.normalised,
    "decision": DECISIONS[answer.is_anomalous],
    "threshold": thresholds.image if thresholds else None,
  }


class AnswerFiles:
  """Writes answers into a folder as they come, each at once and whole.

  Its files are `predictions.csv`, `predictions.jsonl`, and a folder for each
  kind of picture, in which the images' folders are repeated.
  """

  def __init__(
    self,
    folder: str | os.PathLike,
    *,
    pictures: Collection[str] = (),
    scale: ColourScale | None = None,
    roots: Collection[pathlib.Path] = (),
    keep: bool = False,
  ):
    """Opens the files.

    Args:
      folder: The folder to write to, which is created if necessary.
      pictures: The kinds of pictures to write, of PICTURES.
      scale: The colour scale of the model, for the overlays.
      roots: The folders that the images are in; the names of the pictures are
        relative to what these have in common.
      keep: Whether the answers that are already there are kept.

    Raises:
      OSError: If the folder cannot be written.
      ValueError: If overlays are wanted without a colour scale.
    """
    self.folder = pathlib.Path(folder).expanduser().absolute()
    self._pictures = tuple(pictures)
    # Not resolved, so that a link's own name counts.
    absolute = [os.path.abspath(root) for root in roots]
    self._root = os.path.commonpath(absolute or ["/"])
    self._scale = scale
    self._kinds: set[str] = set()
    self._keep = keep
    if OVERLAY in pictures and scale is None:
      raise ValueError(
        "Overlays need the model's colour scale, and this model has none. "
        "Calibrate it, or give `scale`, for example 0,0.5."
      )
    self.folder.mkdir(parents=True, exist_ok=True)
    self._answered: set[str] = set()
    if keep:
      _keep_whole_lines(self.folder / CSV, b"\r\n")
      _keep_whole_lines(self.folder / JSONL, b"\n")
      self._answered = _sources(self.folder / JSONL)
    mode = "a" if keep else "w"
    # File names may hold bytes that are no text.
    text = {"mode": mode, "encoding": "utf-8", "errors": "surrogateescape"}
    self._csv = open(self.folder / CSV, newline="", buffering=1, **text)
    self._jsonl = open(self.folder / JSONL, buffering=1, **text)
    self._writer = csv.DictWriter(self._csv, COLUMNS)
    if self._csv.tell() == 0:
      self._writer.writeheader()

  @property
  def written(self) -> list[str]:
    """The names of the files and folders that were written."""
    return [CSV, JSONL, *(f"{k}/" for k in PICTURES if k in self._kinds)]

  def has(self, source: object) -> bool:
    """Returns whether an image was answered by a run before, with `keep`."""
    return os.path.abspath(str(source)) in self._answered

  def add(self, answer: Answer) -> None:
    """Writes an answer.

    Args:
      answer: The answer to an image file.

    Raises:
      DataError: If the image cannot be read again for a picture, or a picture
        would be written outside the folder.
      OSError: If a file cannot be written.
    """
    for kind in self._pictures:
      if kind not in _NEED_CALIBRATION or answer.mask is not None:
        self._save(kind, answer)
    if self._keep:
      self._answered.add(os.path.abspath(str(answer.source)))
    values = row(answer)
    self._writer.writerow(values)
    self._jsonl.write(json.dumps(values) + "\n")

  def _save(self, kind: str, answer: Answer) -> None:
    path = self._path(kind, pathlib.Path(str(answer.source)))
    if kind == MAP:
      picture = Image.fromarray(answer.anomaly_map)  # mode F, with NaN
    elif kind == MASK:
      assert answer.mask is not None
      picture = Image.fromarray(answer.mask.astype(np.uint8) * 255)
    else:
      picture = Image.fromarray(self._drawn(kind, answer))
    with replacing(path) as partial:
      picture.save(partial)
    self._kinds.add(kind)

  def _drawn(self, kind: str, answer: Answer) -> np.ndarray:
    assert not isinstance(answer.source, int)
    image = np.asarray(transforms.decode(answer.source, "RGB"))
    if image.shape[:2] != answer.anomaly_map.shape:
      raise DataError(f"{answer.source} has changed since it was answered.")
    if kind == CONTOUR:
      assert answer.mask is not None
      return figures.contour(image, answer.mask)
    assert self._scale is not None
    return figures.annotated_overlay(
      image, answer.anomaly_map, self._scale, answer.thresholds
    )

  def _path(self, kind: str, source: pathlib.Path) -> pathlib.Path:
    """Returns where to save a picture; two images never share a name."""
    relative = pathlib.Path(os.path.abspath(source)).relative_to(self._root)
    suffix = ".tiff" if kind == MAP else ".png"
    if relative.suffix != suffix:  # a.jpg and a.bmp are two images
      relative = relative.with_name(relative.name + suffix)
    return path_within(self.folder / kind, *relative.parts)

  def close(self) -> None:
    """Closes the files."""
    self._csv.close()
    self._jsonl.close()

  def __enter__(self) -> "AnswerFiles":
    """Returns itself."""
    return self

  def __exit__(self, *error) -> None:
    """Closes the files."""
    self.close()


def _keep_whole_lines(path: pathlib.Path, end: bytes) -> None:
  """Removes a last line that a killed process has left unfinished."""
  if path.is_file():
    content = path.read_bytes()
    os.truncate(path, content.rfind(end) + len(end) if end in content else 0)


def _sources(path: pathlib.Path) -> set[str]:
  """Reads which images a file of answers has."""
  if not path.is_file():
    return set()
  with open(path, encoding="utf-8") as file:
    return {os.path.abspath(json.loads(line)["source"]) for line in file}
