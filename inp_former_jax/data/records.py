"""Data sets as records of image files, grouped by category."""

import dataclasses
import functools
import os
import pathlib

from inp_former_jax.data.image_files import ImageFile, StoredFile
from inp_former_jax.data.names import (
  fault_of,
  require_distinct,
  require_name,
)

NORMAL, DEFECTIVE = 0, 1
BRIGHT, NON_ZERO = "bright", "non-zero"


@dataclasses.dataclass(frozen=True)
class Record:
  """An image file and what is known about it.

  Attributes:
    image: The image file, in a folder or within a TFDS data set.
    category: The kind of product, e.g. "cable"; may be empty where images have
      none.
    label: 0 for a normal image, 1 for a defective one.
    defect: The kind of defect; "good" for a normal image.
    masks: The files that mark the defective pixels. If there are several, a
      pixel is defective if any of them marks it. Empty for a normal image, and
      for a defective image without a mask, which counts image-wise only.
    mask_values: Which pixels of a mask are defective: BRIGHT means those
      brighter than half, NON_ZERO all that are not 0 (class numbers).
    sample: The object shown, by a name that is unique in its category, if
      several images show the same object; otherwise empty.
    view: The view from which the object is shown, e.g. "C1"; otherwise empty.
    source: The data set that the image comes from, if several are mixed;
      otherwise empty.

  Raises:
    DataError: If the image, its category, defect, sample, view or source has a
      name that no file or folder should have, see `names.require_name`. Only
      the category begins with its source and a slash, if there is a source,
      and a sample may name the folders that it lies in.
  """

  image: ImageFile
  category: str
  label: int
  defect: str
  masks: tuple[ImageFile, ...] = ()
  mask_values: str = BRIGHT
  sample: str = ""
  view: str = ""
  source: str = ""

  def __post_init__(self):
    """Checks the names, because files and folders are named after them."""
    if fault_of(_last_part(self.image)):
      require_name(_last_part(self.image), "name of an image", self.image)
    category = self.category
    if self.source:
      category = category.removeprefix(f"{self.source}/")
    for what, name in (
      ("category", category),
      ("kind of defect", self.defect),
      *(("sample", part) for part in self.sample.split("/")),
      ("view", self.view),
      ("source", self.source),
    ):
      if name != "" and fault_of(name):
        require_name(name, what, self.image)

  @property
  def paths(self) -> tuple[pathlib.Path, ...]:
    """Paths of the image and its masks, for a data set in a folder.

    Raises:
      TypeError: If the files lie within a TFDS data set and have no paths.
    """
    files = (self.image, *self.masks)
    paths = tuple(f for f in files if not isinstance(f, StoredFile))
    if len(paths) < len(files):
      raise TypeError(f"{self.image} is not a file in a folder.")
    return paths


@dataclasses.dataclass(frozen=True)
class Dataset:
  """Records to train on and to evaluate on.

  Attributes:
    name: The name shown in tables and logs.
    train: Normal images. Real-IAD's lists for unsupervised training also hold
      defective images, which are labelled as such.
    test: Normal and defective images; may be empty.
    validation: Normal images that the data set keeps apart; they are used
      neither for training nor for testing.
    unlabelled: Images to predict whose true label is not known; the values of
      their label and defect mean nothing.

  Raises:
    DataError: If two categories differ only in upper and lower case, or in how
      their characters are encoded.
  """

  name: str
  train: tuple[Record, ...]
  test: tuple[Record, ...]
  validation: tuple[Record, ...] = ()
  unlabelled: tuple[Record, ...] = ()

  def __post_init__(self):
    """Checks that the categories can have folders beside each other."""
    parts = (self.train, self.test, self.validation, self.unlabelled)
    names = dict.fromkeys(r.category for part in parts for r in part)
    require_distinct(names, "categories")

  @functools.cached_property
  def categories(self) -> tuple[str, ...]:
    """Names of the categories, in the order in which the records have them."""
    return tuple(dict.fromkeys(r.category for r in self.train + self.test))

  def test_by_category(self) -> tuple[Record, ...]:
    """Returns the test records, grouped in the order of `categories`."""
    order = {category: i for i, category in enumerate(self.categories)}
    return tuple(sorted(self.test, key=lambda r: order[r.category]))


def _last_part(image: ImageFile) -> str:
  # Not image.name: pathlib would keep the parts of each path in memory.
  path = image.path if isinstance(image, StoredFile) else os.fspath(image)
  return path.rstrip("/").rpartition("/")[2]
