"""Config for MVTec-AD and its layout: one model for all categories.

python -m inp_former_jax.main --config=configs/mvtec.py --workdir=DIR \
  --config.data.root=DIR

options.py explains the options, e.g. mvtec.py:single_class or
mvtec.py:few_shot,shots=2.
"""

from ml_collections import ConfigDict

from inp_former_jax.configs import common, options


def get_config(arguments: str = "") -> ConfigDict:
  """Returns the paper's settings for MVTec-AD, which are the defaults.

  Args:
    arguments: The options, which options.py explains.
  """
  config = common.get_config()
  config.data.layout = "mvtec"
  return options.apply(config, arguments)
