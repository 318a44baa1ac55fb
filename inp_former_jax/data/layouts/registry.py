"""Every layout by its name: a folder on disk -> records."""

import os
from collections.abc import Callable, Sequence

from inp_former_jax.data.errors import DataError
from inp_former_jax.data.layouts.btad import read_btad
from inp_former_jax.data.layouts.folder import read_folder
from inp_former_jax.data.layouts.mvtec import read_mvtec
from inp_former_jax.data.layouts.mvtec_ad2 import read_mvtec_ad2
from inp_former_jax.data.layouts.mvtec_loco import read_mvtec_loco
from inp_former_jax.data.layouts.realiad import read_realiad
from inp_former_jax.data.layouts.visa import read_visa
from inp_former_jax.data.records import Dataset

LAYOUTS: dict[str, Callable[..., Dataset]] = {
  "mvtec": read_mvtec,
  "mpdd": read_mvtec,  # its makers took over the layout of MVTec-AD
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
  """Reads a data set.

  Args:
    layout: A key of LAYOUTS.
    root: Folder of the data set, as it comes from its makers.
    categories: Names of those to read, in this order; all if empty.
    **options: Of Real-IAD alone: `images` and `jsons`, see `read_realiad`.

  Returns:
    Its records.

  Raises:
    DataError: The layout is unknown, no root is given, or the reader's own.
  """
  if layout not in LAYOUTS:
    raise DataError(
      f"config.data.layout is {layout!r}; the layouts are "
      f"{', '.join(LAYOUTS)} and demo."
    )
  if not root:
    raise DataError(
      "config.data.root is empty: set --config.data.root=FOLDER to the folder "
      f"of the data set (layout {layout})."
    )
  if layout != "realiad":
    options = {}
  return LAYOUTS[layout](root, categories, **options)
