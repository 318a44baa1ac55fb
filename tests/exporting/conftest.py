"""Small models with parameters of every size, and images of every kind."""

import dataclasses
import pathlib

import jax
import numpy as np
import pytest
from PIL import Image

from inp_former_jax import sharding, train
from inp_former_jax.data.transforms import Preprocessing
from inp_former_jax.exporting.samples import Samples, load_samples
from inp_former_jax.inference import calibration, trained
from inp_former_jax.inference.calibration import Calibration, Evidence
from inp_former_jax.inference.colours import ColourScale
from inp_former_jax.inference.decision import Thresholds
from inp_former_jax.training import model_state
from inp_former_jax.training.model_state import ModelSettings
from tests.conftest import tiny_config

SIZES = Preprocessing(resize=(80, 97), crop=(70, 84))
IDENTITY = {"encoder.sha256": "random"}


def make_model(
  encoder: str = "dinov2reg_vit_femto_14",
  *,
  zero_shot: bool = False,
  sizes: Preprocessing | None = SIZES,
  **settings,
) -> trained.TrainedModel:
  """Makes a model in which no parameter is 0 or 1, as biases are at first."""
  mesh = sharding.single_device_mesh()
  state = model_state.create(
    ModelSettings(encoder, **settings), mesh, encoder_weights="random", seed=0
  )
  rng = np.random.default_rng(5)

  def shaken(x):
    return x + rng.normal(0, 0.1, x.shape).astype(np.float32)

  model = trained.from_state(
    state,
    jax.tree.map(shaken, state.initial_trainable()),
    mesh,
    step=7,
    preprocessing=sizes,
    size=64,
    zero_shot=zero_shot,
  )
  return dataclasses.replace(model, frozen=jax.tree.map(shaken, model.frozen))


def write_images(folder: pathlib.Path) -> list[pathlib.Path]:
  """Writes images of odd sizes, colour, grey, 16-bit, palette and RGBA."""
  rng = np.random.default_rng(2)
  folder.mkdir(parents=True, exist_ok=True)
  files = []
  for i, mode in enumerate(("RGB", "L", "I;16", "P", "RGBA", "RGB", "L")):
    rows, columns = 61 + 13 * i, 150 - 17 * i
    ramp = np.linspace(0, 255, rows * columns * 4).reshape(rows, columns, 4)
    noisy = np.clip(ramp + rng.normal(0, 10 + 9 * i, ramp.shape), 0, 255)
    colour = Image.fromarray(noisy.astype(np.uint8), "RGBA")
    if mode == "I;16":
      image = Image.fromarray((noisy[..., 0] * 257).astype(np.uint16))
    else:
      image = colour.convert(mode)
    files.append(folder / f"{i} {mode.replace(';', '')}.png")
    image.save(files[-1])
  return files


@pytest.fixture(scope="session")
def image_files(tmp_path_factory) -> list[pathlib.Path]:
  return write_images(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="session")
def samples(image_files) -> Samples:
  return load_samples(image_files, SIZES)


@pytest.fixture(scope="session")
def model() -> trained.TrainedModel:
  return make_model()


def thresholds_within(
  model: trained.TrainedModel, images: np.ndarray
) -> Thresholds:
  """Returns thresholds in the widest gaps, so that rounding cannot decide."""
  found = model.predict(images)
  scores = np.sort(np.asarray(found.image_score))
  gap = int(np.argmax(np.diff(scores)))
  values = np.sort(np.asarray(found.anomaly_map).ravel())
  middle = slice(len(values) // 4, 3 * len(values) // 4)
  pixel = int(np.argmax(np.diff(values[middle]))) + middle.start
  return Thresholds(
    image=float(scores[gap : gap + 2].mean()),
    pixel=float(values[pixel : pixel + 2].mean()),
    typical=float(scores[0]) - 1e-3,
  )


def make_calibration(
  model: trained.TrainedModel, images: np.ndarray, **others: Thresholds
) -> Calibration:
  """Returns a calibration; `others` are thresholds of categories."""
  evidence = Evidence(
    method="rate",
    normal=len(images),
    defective=0,
    image_rate=0.05,
    image_interval=(0.01, 0.2),
    pixel_rate=0.001,
    pixel_interval=(0.0, 0.01),
  )
  thresholds = {calibration.ALL: thresholds_within(model, images)} | others
  return Calibration(
    step=model.step,
    options=calibration.Options(
      zero_shot=model.zero_shot, map_size=model.map_size
    ),
    scale=ColourScale(0.1, 0.9),
    thresholds=thresholds,
    evidence={category: evidence for category in thresholds},
    images="images of a test",
    sha256="0" * 64,
  )


@pytest.fixture(scope="session")
def workdir(dataset_root, tmp_path_factory) -> pathlib.Path:
  """The folder of a run that is not calibrated."""
  folder = tmp_path_factory.mktemp("run") / "workdir"
  config = tiny_config(dataset_root)
  config.steps = 2
  train.train_and_evaluate(config, folder)
  (folder / calibration.CALIBRATION).unlink(missing_ok=True)
  return folder
