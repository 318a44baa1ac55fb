"""The published image counts of public data sets, to detect incomplete copies.

A data set is recognised by the names of its categories, whatever its layout.
BTAD is left out: other data sets have categories "01", "02" and "03" too, and
its makers' number of images (2,830) is not that of the copies in use (2,540).
"""

import dataclasses

from inp_former_jax.data.records import NORMAL, Dataset


@dataclasses.dataclass(frozen=True)
class Published:
  """A public data set and its number of images.

  Attributes:
    name: The name that its makers give it.
    counts: Name of a part, e.g. "train" -> its number of images.
    categories: The names of its categories.
  """

  name: str
  counts: dict[str, int]
  categories: frozenset[str]


def _published(
  name: str,
  train: int,
  validation: int,
  normal: int,
  defective: int,
  categories: str,
) -> Published:
  counts = _counts(train, validation, normal, defective)
  return Published(name, counts, frozenset(categories.split()))


def _counts(
  train: int, validation: int, normal: int, defective: int
) -> dict[str, int]:
  return {
    "train": train,
    "validation": validation,
    "normal test": normal,
    "defective test": defective,
  }


# Name, and the numbers of train, validation, normal test and defective test
# images.
PUBLISHED = (
  # Some sources give 498 + 1,982 test images. Correct are 467 + 1,258: together
  # with the 3,629 training images they are the 5,354 of the paper.
  _published(
    *("MVTec-AD", 3629, 0, 467, 1258),
    "bottle cable capsule carpet grid hazelnut leather metal_nut pill screw "
    "tile toothbrush transistor wood zipper",
  ),
  # 3,644 images in the paper.
  _published(
    *("MVTec LOCO AD", 1772, 304, 575, 993),
    "breakfast_box juice_bottle pushpins screw_bag splicing_connectors",
  ),
  # 10,821 images in the paper: 9,621 normal ones, of which the split "1cls"
  # trains on nine tenths, and 1,200 defective ones.
  _published(
    *("VisA (split 1cls)", 8659, 0, 962, 1200),
    "candle capsules cashew chewinggum fryum macaroni1 macaroni2 pcb1 pcb2 "
    "pcb3 pcb4 pipe_fryum",
  ),
  # 1,346 images in the archive.
  _published(
    *("MPDD", 888, 0, 176, 282),
    "bracket_black bracket_brown bracket_white connector metal_plate tubes",
  ),
  # Some sources give 36,645 training images. Correct are 36,465: together with
  # 63,256 test images they are the 99,721 normal images of the paper, which has
  # 151,050 images in total.
  _published(
    *("Real-IAD (one-class, all views)", 36465, 0, 63256, 51329),
    "audiojack bottle_cap button_battery end_cap eraser fire_hood mint mounts "
    "pcb phone_battery plastic_nut plastic_plug porcelain_doll regulator "
    "rolled_strip_base sim_card_set switch tape terminalblock toothbrush toy "
    "toy_brick transistor1 u_block usb usb_adaptor vcpill wooden_beads "
    "woodstick zipper",
  ),
)


def find_published(dataset: Dataset) -> Published | None:
  """Finds the public data set that has the same categories.

  Args:
    dataset: A data set of which all categories were read.

  Returns:
    The public data set, or None if none has these categories.
  """
  names = frozenset(dataset.categories)
  return next((p for p in PUBLISHED if p.categories == names), None)


def differences(dataset: Dataset, published: Published) -> list[str]:
  """Compares the counts of a data set with the published ones.

  Args:
    dataset: The data set.
    published: The public data set that it is a copy of.

  Returns:
    A phrase for each part whose count differs, with both numbers.
  """
  normal = sum(record.label == NORMAL for record in dataset.test)
  found = _counts(
    len(dataset.train),
    len(dataset.validation),
    normal,
    len(dataset.test) - normal,
  )
  return [
    f"{found[part]:,} {part} images instead of {count:,}"
    for part, count in published.counts.items()
    if found[part] != count
  ]
