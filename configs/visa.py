"""Config for VisA, raw or prepared: one model for its 12 categories.

python -m inp_former_jax.main --config=configs/visa.py --workdir=DIR \
  --config.data.root=DIR

options.py explains the options, e.g. visa.py:single_class or
visa.py:few_shot,shots=2.
"""

from ml_collections import ConfigDict

from inp_former_jax.configs import common, options


def get_config(arguments: str = "") -> ConfigDict:
  """Returns the paper's settings for VisA, which are the defaults.

  Args:
    arguments: The options, which options.py explains.
  """
  config = common.get_config()
  config.data.layout = "visa"
  return options.apply(config, arguments)
