"""The config for MVTec LOCO AD: one model for its five categories.

python -m inp_former_jax.main --config=mvtec_loco --workdir=DIR \
  --config.data.root=DIR

Options follow a colon, e.g. mvtec_loco:single_class; see options.py.
"""

from ml_collections import ConfigDict

from inp_former_jax.configs import common, options


def get_config(arguments: str = "") -> ConfigDict:
  """Returns the defaults; the paper has no figures for MVTec LOCO AD."""
  config = common.get_config()
  config.data.layout = "mvtec_loco"
  return options.apply(config, arguments)
