"""Real-IAD, one model for all 30 categories, five views of each object.

python -m inp_former_jax.main --config=configs/realiad.py --workdir=DIR \
  --config.data.root=DIR

Options, e.g. realiad.py:single_class or realiad.py:small,size=224: options.py.
"""

from inp_former_jax.configs import common, options
from ml_collections import ConfigDict


def get_config(arguments: str = "") -> ConfigDict:
  """The paper's settings for Real-IAD are the defaults."""
  config = common.get_config()
  config.data.layout = "realiad"
  return options.apply(config, arguments)
