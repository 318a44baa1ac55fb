"""Config for Real-IAD: one model for 30 categories, five views of each object.

python -m inp_former_jax.main --config=configs/realiad.py --workdir=DIR \
  --config.data.root=DIR

options.py explains the options, e.g. realiad.py:single_class or
realiad.py:small,size=224.
"""

from ml_collections import ConfigDict

from inp_former_jax.configs import common, options


def get_config(arguments: str = "") -> ConfigDict:
  """Returns the paper's settings for Real-IAD, which are the defaults.

  Args:
    arguments: The options, which options.py explains.
  """
  config = common.get_config()
  config.data.layout = "realiad"
  return options.apply(config, arguments)
