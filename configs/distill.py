"""Distillation of an encoder into a smaller one.

python -m weights_conversion.distill --config=configs/distill.py \
  --workdir=DIR --config.teacher.weights=FILE --config.views.folders="('DIR',)"
"""

from inp_former_jax.configs import common
from ml_collections import ConfigDict


def get_config() -> ConfigDict:
  """The settings that made `demo_vit_tiny_14`; folders and teacher are given.

  Its run was stopped at step 600 of 1,536.
  """
  defaults = common.get_config()
  config = ConfigDict()
  config.seed = 1  # views, their order, and initial values
  config.batch_size = 16  # views per step, over all devices
  config.epochs = 4  # passes over the views
  config.steps = 0  # steps of training; above 0 it replaces epochs

  config.teacher = ConfigDict()
  config.teacher.encoder = "dinov2_vit_small_14"
  config.teacher.weights = ""  # as config.model.encoder_weights of training
  config.student = ConfigDict()
  config.student.encoder = "dinov2_vit_tiny_14"
  # "teacher": cut from the teacher in closed form; "random"; or the file of
  # an earlier student.
  config.student.initial = "teacher"
  config.student.dtype = "float32"  # of the computation

  config.views = ConfigDict()
  config.views.folders = ()  # with images, searched to any depth
  # How often a view is of an image of the folders, a generated part of the
  # demo, a generated texture.
  config.views.shares = (0.5, 0.3, 0.2)
  config.views.size = 224  # pixels; 14 divides it
  config.views.min_area = 0.2  # of a crop, as a share of the image's
  config.views.train = 6144  # views; the teacher's answers are kept on disk
  config.views.held_out = 256  # views of other images, to measure on
  config.views.calibration = 1024  # views for the closed-form start

  config.optimizer = defaults.optimizer
  # From a random start some 1e-3; the closed-form one bears less.
  config.optimizer.peak_learning_rate = 4e-5
  config.optimizer.final_learning_rate = 1e-6
  config.optimizer.max_norm = 1.0
  config.data = ConfigDict()
  config.data.num_workers = 0  # processes that read views; 0: threads
  config.data.num_threads = 4
  config.evaluation = ConfigDict()
  config.evaluation.every_steps = 100  # held-out R2; 0: at the end only
  config.checkpoint = defaults.checkpoint
  config.checkpoint.every_steps = 100
  config.log = defaults.log
  config.mesh = defaults.mesh
  return config
