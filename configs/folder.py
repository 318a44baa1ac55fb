"""Config for your own images, laid out as data/layouts/folder.py describes.

python -m inp_former_jax.main --config=configs/folder.py --workdir=DIR \
  --config.data.root=DIR

The whole picture is inspected: it is resized to 392 x 392 and not cropped. The
paper resizes to 448 x 448 and keeps the centre of 392 x 392, which suits the
public data sets, but never inspects the outer 23 % of an image (1/16 of it on
each side), where your own parts may have defects.

A tenth of the normal images of each category, at most 100, is held out to
calibrate thresholds; --config.calibration.holdout=0 trains on all of them.

options.py explains the options, e.g. folder.py:single_class or
folder.py:few_shot,shots=2.
"""

from ml_collections import ConfigDict

from inp_former_jax.configs import common, options


def get_config(arguments: str = "") -> ConfigDict:
  """Returns the paper's settings without the crop.

  Args:
    arguments: The options, which options.py explains.

  Returns:
    The config. Normal images alone are enough to train.
  """
  config = common.get_config()
  config.data.layout = "folder"
  config.data.resize = config.data.crop = 392
  config.calibration.holdout = 0.1
  return options.apply(config, arguments)
