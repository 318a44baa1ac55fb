"""The job that calibrates a run: which images it takes, and when."""

import pathlib
from collections.abc import Sequence

import jax
from ml_collections import ConfigDict

from inp_former_jax import config_files, experiment
from inp_former_jax.data.layouts.registry import read_layout
from inp_former_jax.data.records import NORMAL, Dataset, Record
from inp_former_jax.inference import calibrating, trained
from inp_former_jax.inference.answer import FROM_FOLDER, category_of_folder
from inp_former_jax.inference.calibration import (
  CALIBRATION,
  Calibration,
  CalibrationError,
  drop_calibrations,
  write_calibration,
)
from inp_former_jax.inference.framing import pictures
from inp_former_jax.inference.predictor import Predictor
from inp_former_jax.inference.trained import TrainedModel
from inp_former_jax.training import identity
from inp_former_jax.training.checkpoints import saved_runs
from inp_former_jax.training.progress import announce

HELD_OUT = "held-out normal images of the run"  # where a calibration is from


def calibrate_run(
  model: TrainedModel,
  dataset: Dataset,
  config: ConfigDict,
  workdir: pathlib.Path,
  *,
  just_trained: bool = True,
) -> Calibration | None:
  """Calibrates a model with the normal images that its run held out.

  Args:
    model: The model. All processes of its mesh call this function.
    dataset: The data set of the run; its validation images are used.
    config: The config of the run; `calibration`, `evaluation` and `data` are
      read.
    workdir: The folder of the run, where `calibration.json` is written.
    just_trained: Whether the model has just been trained. If not, a calibration
      that is there is left as it is.

  Returns:
    The calibration; None if there are no such images or there is one, and on
    all processes but the first.

  Raises:
    DataError: If a file cannot be read.
  """
  records = [r for r in dataset.validation if r.label == NORMAL]
  if not just_trained and (workdir / CALIBRATION).is_file():
    return None  # perhaps the user's own, from other images
  if jax.process_index() == 0:
    # That of an earlier checkpoint may be of the same step.
    drop_calibrations(workdir, model.step)
  if not records:
    return None
  model = trained.on_this_process(model)
  if jax.process_index() != 0:
    return None
  announce(f"Calibrating with {len(records)} held-out normal images ...")
  predictor = Predictor(
    model,
    batch_size=config.evaluation.batch_size,
    num_threads=config.data.num_threads,
  )
  found = calibrating.calibrate(
    predictor,
    records,
    image_rate=config.calibration.image_rate,
    pixel_rate=config.calibration.pixel_rate,
    images=HELD_OUT,
  )
  write_calibration(workdir, found)
  for line in calibrating.describe(found, categories=False):
    announce(line)
  announce(f"{CALIBRATION} in {workdir}")
  return found


def held_out(workdir: pathlib.Path) -> Sequence[Record]:
  """Returns the normal images that a run did not train on or test with.

  Args:
    workdir: The folder of the run.

  Raises:
    CalibrationError: If the run held out none, or its data cannot be found.
  """
  config = _recorded_config(workdir)
  if config is None:
    raise CalibrationError(
      f"{workdir} does not say which data it was trained on. Name normal "
      "images that the model has not seen."
    )
  dataset = experiment.read_dataset(config, workdir)
  _, saved = saved_runs.read_identity(workdir)
  now = identity.training_images(dataset)["sha256"]
  if saved.get("training_images.sha256", now) != now:
    raise CalibrationError(
      f"The data set of {workdir} is no longer the one that the model was "
      "trained on, so that images which would be held out now may have been "
      "trained on. Name normal images that the model has not seen."
    )
  records = [r for r in dataset.validation if r.label == NORMAL]
  if not records:
    raise CalibrationError(
      f"The run in {workdir} held out no normal images. Name some that the "
      "model has not seen, or train with --config.calibration.holdout=0.1."
    )
  return records


def categories_of(workdir: pathlib.Path) -> Sequence[str]:
  """Returns the categories that a run was trained on; empty if not known."""
  config = _recorded_config(workdir)
  if config is None:
    return ()
  return experiment.read_dataset(config, workdir).categories


def _recorded_config(workdir: pathlib.Path) -> ConfigDict | None:
  """Returns the config that a training run has recorded; None if it has not."""
  path = workdir / config_files.RECORDED
  if not path.is_file():
    return None
  config = config_files.read_recorded(path)
  kind = config_files.kind_of(config)
  if kind != config_files.TRAINING:
    raise CalibrationError(
      f"The workdir {workdir} belongs to a {kind}, which leaves no model to "
      "calibrate. Name that of a training run."
    )
  return config


def records_of(
  images: Sequence[pathlib.Path],
  labelled: Sequence[pathlib.Path],
  layout: str,
  category: str,
  categories: Sequence[str],
) -> Sequence[Record]:
  """Returns records of images that are named on the command line.

  Args:
    images: Files and folders of normal images.
    labelled: Folders of data sets, whose test and validation images are used.
    layout: The layout of these folders.
    category: The category of `images`; FROM_FOLDER takes the nearest folder
      above an image that is named like one of `categories`.
    categories: The categories of the model, where they are known.

  Raises:
    DataError: If a folder holds no images, or does not have the layout.
  """
  records = []
  for item in pictures.flat(list(images)):
    path = pathlib.Path(str(item))
    name = category
    if category == FROM_FOLDER:
      name = category_of_folder(path, categories)
    source = name.partition("/")[0] if "/" in name else ""
    records.append(Record(path, name, NORMAL, "good", source=source))
  for root in labelled:
    dataset = read_layout(layout, root)
    records += [*dataset.validation, *dataset.test]
  return records
