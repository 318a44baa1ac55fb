"""Config for the distillation of an encoder into a smaller one.

python -m weights_conversion.distill --config=configs/distill.py \
  --workdir=DIR --config.teacher.weights=FILE --config.views.folders="('DIR',)"
"""

from ml_collections import ConfigDict

from inp_former_jax.configs import common


def get_config() -> ConfigDict:
  """Returns the settings that made `demo_vit_tiny_14`.

  Its run was stopped at step 600 of 1,536. The folders of images and the
  teacher's weights are left empty.
  """
  defaults = common.get_config()
  config = ConfigDict()
  config.seed = 1  # views, their order, and initial values
  config.batch_size = 16  # views per step, over all devices
  config.epochs = 4  # passes over the views
  config.steps = 0  # training steps; if above 0, used instead of epochs

  config.teacher = ConfigDict()
  config.teacher.encoder = "dinov2_vit_small_14"
  config.teacher.weights = ""  # as config.model.encoder_weights in common.py
  config.student = ConfigDict()
  config.student.encoder = "dinov2_vit_tiny_14"
  # "teacher" cuts the student out of the teacher in closed form. Otherwise
  # "random", or the file of an earlier student.
  config.student.initial = "teacher"
  config.student.dtype = "float32"  # compute dtype

  config.views = ConfigDict()
  config.views.folders = ()  # folders of images, searched to any depth
  # Shares of the views that show an image of the folders, a generated part of
  # the demo, and a generated texture.
  config.views.shares = (0.5, 0.3, 0.2)
  config.views.size = 224  # pixels; 14 divides it
  config.views.min_area = 0.2  # smallest crop, as a share of the image
  config.views.train = 6144  # views; the teacher's outputs are kept on disk
  config.views.held_out = 256  # views of other images, for measuring R2
  config.views.calibration = 1024  # views for the closed-form start

  config.optimizer = defaults.optimizer
  # A random start takes about 1e-3; the closed-form one tolerates less.
  config.optimizer.peak_learning_rate = 4e-5
  config.optimizer.final_learning_rate = 1e-6
  config.optimizer.max_norm = 1.0
  config.data = ConfigDict()
  config.data.num_workers = 0  # processes that read views; 0: threads
  config.data.num_threads = 4
  config.evaluation = ConfigDict()
  # Steps between measurements of the held-out R2; 0: only at the end.
  config.evaluation.every_steps = 100
  config.checkpoint = defaults.checkpoint
  config.checkpoint.every_steps = 100
  del config.checkpoint.best, config.checkpoint.use  # of evaluated models
  config.log = defaults.log
  config.mesh = defaults.mesh
  return config
