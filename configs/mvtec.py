"""MVTec-AD and its layout, one model for all categories.

python -m inp_former_jax.main --config=configs/mvtec.py --workdir=DIR \
  --config.data.root=DIR

Options, e.g. mvtec.py:single_class or mvtec.py:few_shot,shots=2: options.py.
"""

from inp_former_jax.configs import common, options
from ml_collections import ConfigDict


def get_config(arguments: str = "") -> ConfigDict:
  """The paper's settings for MVTec-AD are the defaults."""
  config = common.get_config()
  config.data.layout = "mvtec"
  return options.apply(config, arguments)
