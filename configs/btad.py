"""BTAD, one model for its three categories.

python -m inp_former_jax.main --config=configs/btad.py --workdir=DIR \
  --config.data.root=DIR

Options, e.g. btad.py:single_class or btad.py:few_shot,shots=2: options.py.
"""

from inp_former_jax.configs import common, options
from ml_collections import ConfigDict


def get_config(arguments: str = "") -> ConfigDict:
  """The defaults; the paper has no figures for BTAD here."""
  config = common.get_config()
  config.data.layout = "btad"
  return options.apply(config, arguments)
