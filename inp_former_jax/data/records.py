"""What a data set is: records of image files, told apart by category."""

import dataclasses
import pathlib


class DataError(ValueError):
  """A data set or one of its files is not as it must be; names the file."""


@dataclasses.dataclass(frozen=True)
class Record:
  """One image file and what is known of it.

  Attributes:
    image: The image file.
    category: The kind of product, e.g. "cable".
    label: 0 for a normal image, 1 for a defective one.
    defect: "good", or the kind of defect.
    mask: The file that marks the defective pixels. None for a normal image,
      and for a defective one without: it then counts image-wise only.
  """

  image: pathlib.Path
  category: str
  label: int
  defect: str
  mask: pathlib.Path | None = None


@dataclasses.dataclass(frozen=True)
class Dataset:
  """Records to train on and to evaluate on.

  Attributes:
    name: For tables and logs.
    train: Normal images.
    test: Normal and defective images; may be empty.
  """

  name: str
  train: tuple[Record, ...]
  test: tuple[Record, ...]

  @property
  def categories(self) -> tuple[str, ...]:
    """Names of the categories, in the order of the records."""
    return tuple(dict.fromkeys(r.category for r in self.train + self.test))
