"""MPDD, one model for its six categories.

python -m inp_former_jax.main --config=configs/mpdd.py --workdir=DIR \
  --config.data.root=DIR

Options, e.g. mpdd.py:single_class or mpdd.py:few_shot,shots=2: options.py.
"""

from inp_former_jax.configs import common, options
from ml_collections import ConfigDict


def get_config(arguments: str = "") -> ConfigDict:
  """The defaults; the paper has no figures for MPDD here."""
  config = common.get_config()
  config.data.layout = "mpdd"
  return options.apply(config, arguments)
