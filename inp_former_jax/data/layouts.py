"""Every layout by its name: a folder on disk -> records."""

import os
from collections.abc import Callable, Sequence

from inp_former_jax.data.mvtec import read_mvtec
from inp_former_jax.data.records import DataError, Dataset

LAYOUTS: dict[str, Callable[..., Dataset]] = {
  "mvtec": read_mvtec,
}


def read_layout(
  layout: str,
  root: str | os.PathLike,
  categories: Sequence[str] = (),
) -> Dataset:
  """Reads a data set.

  Args:
    layout: A key of LAYOUTS.
    root: Folder of the data set, as it comes from its makers.
    categories: Names of those to read, in this order; all if empty.

  Returns:
    Its records.

  Raises:
    DataError: The layout is unknown, no root is given, or the reader's own.
  """
  if layout not in LAYOUTS:
    raise DataError(
      f"config.data.layout is {layout!r}; the layouts are "
      f"{', '.join(LAYOUTS)}."
    )
  if not root:
    raise DataError(
      "config.data.root is empty: set --config.data.root=FOLDER to the folder "
      "that holds the categories."
    )
  return LAYOUTS[layout](root, categories)
