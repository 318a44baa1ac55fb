"""VisA, raw or prepared, one model for all 12 categories.

python -m inp_former_jax.main --config=configs/visa.py --workdir=DIR \
  --config.data.root=DIR

Options, e.g. visa.py:single_class or visa.py:few_shot,shots=2: options.py.
"""

from inp_former_jax.configs import common, options
from ml_collections import ConfigDict


def get_config(arguments: str = "") -> ConfigDict:
  """The paper's settings for VisA are the defaults."""
  config = common.get_config()
  config.data.layout = "visa"
  return options.apply(config, arguments)
