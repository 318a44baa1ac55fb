"""What a data set is: records of image files, told apart by category."""

import dataclasses
import functools
import pathlib

from inp_former_jax.data.image_files import ImageFile, StoredFile

NORMAL, DEFECTIVE = 0, 1
BRIGHT, NON_ZERO = "bright", "non-zero"


@dataclasses.dataclass(frozen=True)
class Record:
  """One image file and what is known of it.

  Attributes:
    image: The image file, or the file within a TFDS data set.
    category: The kind of product, e.g. "cable".
    label: 0 for a normal image, 1 for a defective one.
    defect: "good", or the kind of defect.
    masks: The files that mark the defective pixels; together, where they are
      several. None for a normal image, and for a defective one without: it
      then counts image-wise only.
    mask_values: Which pixels of a mask are defective: BRIGHT, those above
      half, or NON_ZERO, all but 0 (class numbers).
    sample: The object shown, where several images show the same one; names it
      within its category. Else empty.
    view: From where it is shown, e.g. "C1"; else empty.
    source: The data set it comes from, where several are mixed; else empty.
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

  @property
  def paths(self) -> tuple[pathlib.Path, ...]:
    """The image and the masks, of a data set that lies in a folder.

    Raises:
      TypeError: They lie within a TFDS data set and have no paths.
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
    name: For tables and logs.
    train: Normal images; in Real-IAD's lists of unsupervised training some
      are defective and labelled so.
    test: Normal and defective images; may be empty.
    validation: Normal images a data set keeps apart; neither trained nor
      tested on.
    unlabelled: Images to predict, of which nobody knows what they show; their
      label and defect mean nothing.
  """

  name: str
  train: tuple[Record, ...]
  test: tuple[Record, ...]
  validation: tuple[Record, ...] = ()
  unlabelled: tuple[Record, ...] = ()

  @functools.cached_property
  def categories(self) -> tuple[str, ...]:
    """Names of the categories, in the order of the records."""
    return tuple(dict.fromkeys(r.category for r in self.train + self.test))

  def test_by_category(self) -> tuple[Record, ...]:
    """The test records, those of a category together."""
    order = {category: i for i, category in enumerate(self.categories)}
    return tuple(sorted(self.test, key=lambda r: order[r.category]))
