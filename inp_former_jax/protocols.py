"""What a run does with its categories: one model for all, for each, or none."""

import os
from collections.abc import Callable

import jax
from ml_collections import ConfigDict

from inp_former_jax import evaluate, experiment, train
from inp_former_jax.evaluation import report, results
from inp_former_jax.training import checkpoint

MULTI_CLASS, SINGLE_CLASS, ZERO_SHOT = (
  "multi_class",
  "single_class",
  "zero_shot",
)
PROTOCOLS = (MULTI_CLASS, SINGLE_CLASS, ZERO_SHOT)

Run = Callable[[ConfigDict, str | os.PathLike], results.Evaluation]


def train_and_evaluate(
  config: ConfigDict, workdir: str | os.PathLike
) -> results.Evaluation:
  """Does what `config.protocol` says.

  Args:
    config: The run's config.
    workdir: Folder for everything. Started again, the run goes on.

  Returns:
    The metrics of the test set.

  Raises:
    ValueError: The protocol is unknown; or see `train.train_and_evaluate`.
  """
  _check(config)
  if config.protocol == ZERO_SHOT:
    return evaluate.evaluate_checkpoint(config, workdir)
  if config.protocol == SINGLE_CLASS:
    return _each_category(train.train_and_evaluate, config, workdir)
  return train.train_and_evaluate(config, workdir)


def evaluate_checkpoint(
  config: ConfigDict, workdir: str | os.PathLike
) -> results.Evaluation:
  """Evaluates what `train_and_evaluate` has trained.

  Args:
    config: The run's config.
    workdir: Of that run.

  Returns:
    The metrics of the test set.

  Raises:
    ValueError: The protocol is unknown; or see `evaluate.evaluate_checkpoint`.
  """
  _check(config)
  if config.protocol == SINGLE_CLASS:
    return _each_category(
      evaluate.evaluate_checkpoint, config, workdir, again=True
    )
  return evaluate.evaluate_checkpoint(config, workdir)


def _check(config: ConfigDict) -> None:
  if config.protocol not in PROTOCOLS:
    raise ValueError(
      f"config.protocol is {config.protocol!r}; it can be "
      f"{', '.join(PROTOCOLS)}."
    )


def _each_category(
  run: Run,
  config: ConfigDict,
  workdir: str | os.PathLike,
  *,
  again: bool = False,
) -> results.Evaluation:
  """One model per category in turn, one table at the end.

  Every category has a workdir of its own below this one. A category whose
  metrics are there, of this very config, is not run again unless asked for.
  """
  workdir = checkpoint.prepare_workdir(workdir, needed=0)
  dataset = experiment.read_dataset(config, workdir)
  found: dict[str, results.CategoryResult] = {}
  untested, step = [], 0
  tested = {record.category for record in dataset.test}
  for number, category in enumerate(dataset.categories, start=1):
    own = _of_category(config, category)
    folder = workdir / category
    if category not in tested:
      untested.append(category)
      if not again:
        run(own, folder)
      continue
    result = None if again else report.read_metrics(folder, own)
    if result is None:
      if jax.process_index() == 0:
        print(f"Category {number} of {len(dataset.categories)}: {category}")
      run(own, folder)
      result = report.read_metrics(folder, own)
    if result is None:
      raise ValueError(
        f"{folder / report.METRICS} is of another config, or cannot be seen "
        "by this process. All processes must share the workdir."
      )
    step, categories = result
    found |= categories
  whole = results.Evaluation(
    step=step,
    categories=found,
    mean=results.mean_metrics(found.values()) if found else {},
    source_means=results.source_means(found, dataset.test),
    untested=tuple(untested),
  )
  report.write_report(whole, config, workdir)
  return whole


def _of_category(config: ConfigDict, category: str) -> ConfigDict:
  own = config.copy_and_resolve_references()
  own.protocol = MULTI_CLASS
  own.data.categories = (category,)
  if own.data.layout == "demo" and not own.data.root:
    raise ValueError(
      "The demo data set is written to the workdir, of which each category "
      "has its own here: set --config.data.root=FOLDER, where it is written."
    )
  return own
