"""Config for zero-shot scoring: INP distances of a model trained elsewhere.

python -m inp_former_jax.main --config=configs/zero_shot.py --workdir=DIR \
  --config.zero_shot_checkpoint=WORKDIR_OF_THE_TRAINED_MODEL \
  --config.data.layout=visa --config.data.root=DIR

Nothing is trained: the farther a patch is from the nearest INP of its own
image, the more anomalous it is.
"""

from ml_collections import ConfigDict

from inp_former_jax.configs import common, options


def get_config(arguments: str = "") -> ConfigDict:
  """Returns the defaults, for zero-shot scoring.

  The encoder and the image sizes must be those of the trained model.

  Args:
    arguments: The options, which options.py explains.
  """
  config = common.get_config()
  config.protocol = "zero_shot"
  return options.apply(config, arguments)
