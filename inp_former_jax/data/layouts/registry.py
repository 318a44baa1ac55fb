"""All layouts by name, and the function that reads a folder in any of them."""

import os
from collections.abc import Callable, Sequence

from inp_former_jax.data.errors import DataError
from inp_former_jax.data.layouts.btad import read_btad
from inp_former_jax.data.layouts.folder import read_folder
from inp_former_jax.data.layouts.mvtec import read_mvtec
from inp_former_jax.data.layouts.mvtec_ad2 import read_mvtec_ad2
from inp_former_jax.data.layouts.mvtec_loco import read_mvtec_loco
from inp_former_jax.data.layouts.realiad import read_realiad
from inp_former_jax.data.layouts.recognition import describe_other
from inp_former_jax.data.layouts.visa import read_visa
from inp_former_jax.data.records import Dataset

LAYOUTS: dict[str, Callable[..., Dataset]] = {
  "mvtec": read_mvtec,
  "mpdd": read_mvtec,  # its makers use the layout of MVTec-AD
  "btad": read_btad,
  "mvtec_loco": read_mvtec_loco,
  "mvtec_ad2": read_mvtec_ad2,
  "visa": read_visa,
  "realiad": read_realiad,
  "folder": read_folder,
}


def read_layout(
  layout: str,
  root: str | os.PathLike,
  categories: Sequence[str] = (),
  **options: str,
) -> Dataset:
  """Reads a data set in any of the layouts.

  Args:
    layout: The name of the layout, a key of LAYOUTS.
    root: The folder of the data set, laid out as its makers publish it.
    categories: Names of the categories to read, in this order; all if empty.
    **options: The options `images` and `jsons` of `read_realiad`; the other
      layouts ignore them.

  Returns:
    The records of the data set.

  Raises:
    DataError: If the layout is unknown, no root is given, or the folder does
      not hold a complete data set in that layout. If the folder has another
      layout that is recognised, the error says which.
  """
  if layout not in LAYOUTS:
    raise DataError(
      f"`layout` is {layout!r}; the layouts are {', '.join(LAYOUTS)} and demo."
    )
  if not root:
    raise DataError(
      "`root` is empty: set `root`=FOLDER to the folder of the data set, which "
      f"has the layout {layout}."
    )
  if layout != "realiad":
    options = {}
  try:
    return LAYOUTS[layout](root, categories, **options)
  except DataError as error:
    other = describe_other(root, layout)
    if other:
      raise DataError(other) from error
    raise
