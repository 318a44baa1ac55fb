"""Combines several data sets into one for super-multi-class training."""

import dataclasses
import os
from collections import Counter
from collections.abc import Callable, Sequence

from inp_former_jax.data.errors import DataError
from inp_former_jax.data.layouts.registry import read_layout
from inp_former_jax.data.layouts.tree import absolute, select_categories
from inp_former_jax.data.records import Dataset, Record

Source = tuple[str, str, Sequence[str]]  # layout, root, categories

_SPLITS = ("train", "test", "validation", "unlabelled")


def read_sources(
  sources: Sequence[Source],
  read: Callable[..., Dataset] = read_layout,
) -> Dataset:
  """Reads several data sets and combines them into one.

  Args:
    sources: A tuple (layout, root) or (layout, root, categories) for each data
      set.
    read: The function that reads one data set, called with these three values.

  Returns:
    The combined data set, with the records of one data set after those of the
    other. Categories are qualified, e.g. `mvtec/cable`, and every record names
    its source: the layout, or the name of the data set's folder if several
    data sets have the same layout.

  Raises:
    DataError: If a source is not of this form, if two sources have the same
      name, or if a data set cannot be read.
  """
  sources = [_checked(source) for source in sources]
  names = _names(sources)
  datasets = [
    qualify(read(*source), name)
    for source, name in zip(sources, names, strict=True)
  ]
  return Dataset(
    " + ".join(names),
    *(
      tuple(r for dataset in datasets for r in getattr(dataset, split))
      for split in _SPLITS
    ),
  )


def require_roots(sources: Sequence[Sequence]) -> None:
  """Makes sure that every source names the folder of its data set.

  Args:
    sources: The sources, as `read_sources` takes them; the demo's may name no
      folder.

  Raises:
    DataError: If a folder is missing, as in the config of a mixture.
  """
  missing = [
    source[0]
    for source in sources
    if len(source) > 1 and not source[1] and source[0] != "demo"
  ]
  if missing:
    example = ", ".join(f"('{name}', '/data/{name}')" for name in missing)
    raise DataError(
      f"`sources` names no folder for {', '.join(missing)}. Set the layout and "
      f'the folder of each data set: `sources`="({example},)". Any layouts can '
      "be mixed; a third value, as in ('visa', '/data/visa', ('candle', "
      "'pcb1')), selects categories."
    )


def _checked(source: Sequence) -> Source:
  source = tuple(source)
  if len(source) not in (2, 3) or not all(
    isinstance(part, str) for part in source[:2]
  ):
    raise DataError(
      f"`sources` holds {source!r}; expected (layout, root) or (layout, root, "
      "categories), e.g. ('visa', '/data/visa', ())."
    )
  layout, root, *categories = source
  return layout, root, categories[0] if categories else ()


def _names(sources: Sequence[Source]) -> list[str]:
  layouts = Counter(layout for layout, _, _ in sources)
  names = [
    layout if layouts[layout] == 1 else absolute(root).name
    for layout, root, _ in sources
  ]
  twice = [name for name, count in Counter(names).items() if count > 1]
  if twice:
    raise DataError(
      f"Two of `sources` are called {twice[0]!r}; expected folders with "
      "different names if a layout occurs more than once. Rename one of them."
    )
  return names


def qualify(dataset: Dataset, name: str) -> Dataset:
  """Qualifies the categories of a data set by its name.

  Args:
    dataset: The data set to change.
    name: Its name in the mixture.

  Returns:
    The data set with the categories `name/category` and the source `name`.
  """

  def qualified(record: Record) -> Record:
    return dataclasses.replace(
      record, category=f"{name}/{record.category}", source=name
    )

  return Dataset(
    dataset.name,
    *(
      tuple(qualified(r) for r in getattr(dataset, split)) for split in _SPLITS
    ),
  )


def keep_categories(
  dataset: Dataset, categories: Sequence[str], root: str | os.PathLike
) -> Dataset:
  """Keeps only some categories of a data set.

  Args:
    dataset: The data set to choose from.
    categories: The categories to keep; all of them if empty.
    root: The folder of the data set, named in the error.

  Returns:
    The data set with only the records of these categories.

  Raises:
    DataError: If the data set has no such category.
  """
  if not categories:
    return dataset
  present = {name: None for name in dataset.categories}
  kept = select_categories(absolute(root), present, categories)
  return Dataset(
    dataset.name,
    *(
      tuple(r for r in getattr(dataset, split) if r.category in kept)
      for split in _SPLITS
    ),
  )
