"""Several data sets as one: super-multi-class training."""

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
  """Reads data sets and puts them together.

  Args:
    sources: (layout, root) or (layout, root, categories) of each, as
      `config.data.sources` has them.
    read: Reads one of them.

  Returns:
    Their records, one data set after the other. Categories are qualified,
    `mvtec/cable`, and every record names its source: the layout, or the name
    of its folder where a layout comes more than once.

  Raises:
    DataError: A source is not of this form, two have the same name, or the
      reader's own.
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


def _checked(source: Sequence) -> Source:
  source = tuple(source)
  if len(source) not in (2, 3) or not all(
    isinstance(part, str) for part in source[:2]
  ):
    raise DataError(
      f"config.data.sources holds {source!r}; expected (layout, root) or "
      "(layout, root, categories), e.g. ('visa', '/data/visa', ())."
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
      f"Two of config.data.sources are called {twice[0]!r}; expected folders "
      "of different names where a layout comes more than once. Rename one."
    )
  return names


def qualify(dataset: Dataset, name: str) -> Dataset:
  """Puts a data set's name before its categories.

  Args:
    dataset: Any.
    name: Its name among others.

  Returns:
    The same with the categories `name/category` and `source` set.
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
  """Leaves out all categories but some.

  Args:
    dataset: Any.
    categories: Those to keep; all if empty.
    root: Where the data set lies, for the error.

  Raises:
    DataError: One of them is not there.
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
