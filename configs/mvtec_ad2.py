"""The config for MVTec AD 2: one model for its eight categories.

python -m inp_former_jax.main --config=mvtec_ad2 --workdir=DIR \
  --config.data.root=DIR

Options follow a colon, e.g. mvtec_ad2:single_class; see options.py.
"""

from ml_collections import ConfigDict

from inp_former_jax.configs import common, options


def get_config(arguments: str = "") -> ConfigDict:
  """Returns the defaults; the paper has no figures for MVTec AD 2."""
  config = common.get_config()
  config.data.layout = "mvtec_ad2"
  return options.apply(config, arguments)
